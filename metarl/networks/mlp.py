"""The multilayer perceptron."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from metarl.networks.layers import (
    affine,
    depth,
    head,
    init_norm,
    new_head,
    scale_and_shift,
    tasks_as_axis,
    tasks_as_channels,
    uniform,
)
from metarl.networks.normalisation import normalise
from metarl.params import Params
from metarl.settings import Section, Widths


class MLP(Section):
    """A multilayer perceptron of ReLUs, with batch normalisation or without."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Widths = (40, 40)
    norm: bool = False

    @property
    def for_images(self) -> str | None:
        """The normalisation: examples of a regression are too few and too alike."""
        return "norm" if self.norm else None

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Parameters for inputs of a shape and O outputs, as `init_mlp` makes them."""
        return init_mlp(generator, (math.prod(shape), *self.hidden_sizes, outputs), self.norm)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, ...)."""
        return mlp(params, inputs.flatten(2), torch.relu)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""
        return mlp_features(params, inputs.flatten(2), torch.relu)

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        """The names of the last layer's parameters."""
        return head(params)

    def new_head(self, params: Params, outputs: int) -> Params:
        """The same parameters, with a last layer of zeros and another number of outputs."""
        return new_head(params, outputs)


def init_mlp(
    generator: torch.Generator,
    sizes: Sequence[int],
    norm: bool = False,
    output_scale: float = 1.0,
) -> Params:
    """Parameters of a multilayer perceptron: Xavier-uniform weights, zero biases.

    Args:
        generator: the source of randomness.
        sizes: widths of input, hidden layers and output; (2, 100, 100, 2) has two hidden layers.
        norm: normalise the hidden layers over the batch; they have `scale0`, `shift0`, ... then,
            and no bias, which the normalisation would take away again.
        output_scale: factor on the weights of the last layer.

    Returns:
        `weight0` (sizes[0], sizes[1]), `bias0` (sizes[1],), `weight1`, ... in this order.
    """
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        params[f"weight{layer}"] = uniform(generator, (fan_in, fan_out), fan_in, fan_out)
        if norm and layer < len(sizes) - 2:
            params |= init_norm(layer, fan_out)
        else:
            params[f"bias{layer}"] = torch.zeros(fan_out)
    if output_scale != 1.0:
        params[f"weight{len(sizes) - 2}"] *= output_scale
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
    return affine(params, depth(params) - 1, mlp_features(params, inputs, activation))


def mlp_features(
    params: Mapping[str, Tensor], inputs: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """What the last layer of `mlp` sees: (M, F), or (N, M, F)."""
    hidden = inputs
    for layer in range(depth(params) - 1):
        if f"scale{layer}" in params:
            hidden = hidden @ params[f"weight{layer}"]
            channels = tasks_as_channels(hidden)
            hidden = tasks_as_axis(normalise(channels, *scale_and_shift(params, layer)), hidden)
        else:
            hidden = affine(params, layer, hidden)
        hidden = activation(hidden)
    return hidden
