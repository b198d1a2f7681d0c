"""The convolutional network of few-shot learning (Vinyals et al. 2016).

Its settings are `metarl.networks.config.Conv4`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.networks.layers import (
    affine,
    init_norm,
    scale_and_shift,
    tasks_as_axis,
    tasks_as_channels,
    uniform,
)
from metarl.networks.normalisation import normalise, normalise_and_pool
from metarl.params import Params

BLOCKS = 4


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
        params[f"weight{block}"] = uniform(generator, kernel, 9 * channels, 9 * filters)
        params |= init_norm(block, filters)
        channels = filters
    features = filters * (height // 2**BLOCKS) * (width // 2**BLOCKS) if pool else filters
    params[f"weight{BLOCKS}"] = uniform(generator, (features, outputs), features, outputs)
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
    return affine(params, BLOCKS, conv4_features(params, images, pool))


def conv4_features(params: Mapping[str, Tensor], images: Tensor, pool: bool) -> Tensor:
    """What the linear layer of `conv4` sees: (M, features), or (N, M, features)."""
    stacked = images.dim() == 5
    hidden = tasks_as_channels(images)
    for block in range(BLOCKS):
        kernel, (scale, shift) = params[f"weight{block}"], scale_and_shift(params, block)
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
        hidden = tasks_as_axis(hidden, images)
    return hidden.flatten(-3) if pool else hidden.mean((-2, -1))
