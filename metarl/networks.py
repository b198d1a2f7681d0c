"""Neural networks as stateless functions of a parameter dictionary.

Every network serves one task or many. Where its parameters are stacked over tasks, (N, ...), so are
its inputs, and each task has weights of its own: one call a layer for all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.normalisation import normalise, normalise_and_pool
from metarl.params import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}
BLOCKS = 4


def init_mlp(generator: torch.Generator, sizes: Sequence[int], norm: bool = False) -> Params:
    """Parameters of a multilayer perceptron: Xavier-uniform weights, zero biases.

    Args:
        generator: the source of randomness.
        sizes: widths of input, hidden layers and output; (2, 100, 100, 2) has two hidden layers.
        norm: normalise the hidden layers over the batch; they have `scale0`, `shift0`, ... then,
            and no bias, which the normalisation would take away again.

    Returns:
        `weight0` (sizes[0], sizes[1]), `bias0` (sizes[1],), `weight1`, ... in this order.
    """
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        params[f"weight{layer}"] = _uniform(generator, (fan_in, fan_out), fan_in, fan_out)
        if norm and layer < len(sizes) - 2:
            params |= _init_norm(layer, fan_out)
        else:
            params[f"bias{layer}"] = torch.zeros(fan_out)
    return params


def mlp(
    params: Mapping[str, Tensor], inputs: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply the network; no activation after the last layer.

    Args:
        params: as made by `init_mlp`; further entries are ignored.
        inputs: (M, S), or (N, M, S) where the parameters are stacked.
        activation: applied between layers.

    Returns:
        (M, O), or (N, M, O).
    """
    return _affine(params, _depth(params) - 1, mlp_features(params, inputs, activation))


def mlp_features(
    params: Mapping[str, Tensor], inputs: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """What the last layer of `mlp` sees: (M, F), or (N, M, F)."""
    hidden = inputs
    for layer in range(_depth(params) - 1):
        if f"scale{layer}" in params:
            hidden = hidden @ params[f"weight{layer}"]
            channels = _tasks_as_channels(hidden)
            hidden = _tasks_as_axis(normalise(channels, *_scale_and_shift(params, layer)), hidden)
        else:
            hidden = _affine(params, layer, hidden)
        hidden = activation(hidden)
    return hidden


def init_conv4(
    generator: torch.Generator,
    shape: tuple[int, int, int],
    outputs: int,
    filters: int,
    pool: bool,
) -> Params:
    """Parameters of four convolutional blocks and a linear layer: Xavier-uniform, without biases.

    Args:
        generator: the source of randomness.
        shape: of an image, (C, H, W).
        outputs: O.
        filters: of every block.
        pool: as for `conv4`.

    Returns:
        `weight0` (filters, C, 3, 3), `scale0` (filters,), `shift0` (filters,), ..., `weight4`
        (features, O), `bias4` (O,).
    """
    params: Params = {}
    channels, height, width = shape
    for block in range(BLOCKS):
        kernel = (filters, channels, 3, 3)
        params[f"weight{block}"] = _uniform(generator, kernel, 9 * channels, 9 * filters)
        params |= _init_norm(block, filters)
        channels = filters
    features = filters * (height // 2**BLOCKS) * (width // 2**BLOCKS) if pool else filters
    params[f"weight{BLOCKS}"] = _uniform(generator, (features, outputs), features, outputs)
    params[f"bias{BLOCKS}"] = torch.zeros(outputs)
    return params


def conv4(params: Mapping[str, Tensor], images: Tensor, pool: bool) -> Tensor:
    """The convolutional network of few-shot learning (Vinyals et al. 2016; Finn et al. 2017, 5.2).

    Four blocks of a 3x3 convolution, batch normalisation and ReLU, and a linear layer. The
    normalisation takes the statistics of this very batch, at test as well (transductive).

    Args:
        params: as made by `init_conv4`; further entries are ignored.
        images: (M, C, H, W), or (N, M, C, H, W) where the parameters are stacked.
        pool: halve the picture by 2x2 max-pooling in each block, and give all that remains to the
            linear layer (MiniImagenet). Otherwise by a stride of 2, and the mean over what remains
            (Omniglot).

    Returns:
        Logits, (M, O) or (N, M, O).
    """
    return _affine(params, BLOCKS, conv4_features(params, images, pool))


def conv4_features(params: Mapping[str, Tensor], images: Tensor, pool: bool) -> Tensor:
    """What the linear layer of `conv4` sees: (M, features), or (N, M, features)."""
    stacked = images.dim() == 5
    hidden = _tasks_as_channels(images)
    for block in range(BLOCKS):
        kernel, (scale, shift) = params[f"weight{block}"], _scale_and_shift(params, block)
        if pool:  # channels that are scaled by less than zero change their sign right here
            sign = torch.where(scale < 0.0, -1.0, 1.0)
            kernel, scale = kernel * sign[..., None, None, None], scale * sign
        # tasks side by side are groups of channels, each with kernels of its own
        hidden = F.conv2d(
            hidden,
            kernel.flatten(0, 1) if stacked else kernel,
            stride=1 if pool else 2,
            padding=1,
            groups=len(images) if stacked else 1,
        )
        # pooled before the ReLU, with which the maximum commutes: there is less to rectify
        hidden = torch.relu((normalise_and_pool if pool else normalise)(hidden, scale, shift))
    if stacked:
        hidden = _tasks_as_axis(hidden, images)
    return hidden.flatten(-3) if pool else hidden.mean((-2, -1))


def head(params: Mapping[str, Tensor]) -> list[str]:
    """The names of the last layer's parameters."""
    last = _depth(params) - 1
    return [f"weight{last}", f"bias{last}"]


def _depth(params: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("weight") for name in params)


def _uniform(
    generator: torch.Generator, size: tuple[int, ...], fan_in: int, fan_out: int
) -> Tensor:
    bound = math.sqrt(6.0 / (fan_in + fan_out))  # Glorot and Bengio (2010)
    return (2.0 * torch.rand(size, generator=generator) - 1.0) * bound


def _init_norm(layer: int, width: int) -> Params:
    return {f"scale{layer}": torch.ones(width), f"shift{layer}": torch.zeros(width)}


def _affine(params: Mapping[str, Tensor], layer: int, inputs: Tensor) -> Tensor:
    weight, bias = params[f"weight{layer}"], params[f"bias{layer}"]
    if weight.dim() == inputs.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
    return inputs @ weight + bias.unsqueeze(-2)


def _scale_and_shift(params: Mapping[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    return params[f"scale{layer}"], params[f"shift{layer}"]


def _tasks_as_channels(inputs: Tensor) -> Tensor:
    """(N, M, F, ...) to (M, N·F, ...), where there is a task axis."""
    return inputs.movedim(0, 1).flatten(1, 2) if inputs.dim() in (3, 5) else inputs


def _tasks_as_axis(channels: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_tasks_as_channels`."""
    if like.dim() not in (3, 5):
        return channels
    return channels.view(len(channels), len(like), -1, *channels.shape[2:]).movedim(1, 0)
