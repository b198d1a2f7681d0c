"""Multilayer perceptrons."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from metarl.config.sections import PositiveInt
from metarl.networks.layers import (
    Layered,
    affine,
    depth,
    init_norm,
    scale_and_shift,
    tasks_as_axis,
    tasks_as_channels,
    uniform,
)
from metarl.networks.normalisation import normalise
from metarl.params import Params


class MLP(Layered):
    """A multilayer perceptron with ReLU.

    `hidden_sizes` are the widths of its hidden layers; without any it is linear, and its features
    are its inputs. With `norm: true` they have batch normalisation.
    """

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: tuple[PositiveInt, ...] = (40, 40)
    norm: bool = False

    @property
    def for_images(self) -> str | None:
        # the examples of a regression task are too few and too similar for batch statistics
        return "norm" if self.norm else None

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        return init_mlp(generator, (math.prod(shape), *self.hidden_sizes, outputs), self.norm)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return mlp(params, inputs.flatten(2), torch.relu)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return mlp_features(params, inputs.flatten(2), torch.relu)


def init_mlp(
    generator: torch.Generator, sizes: Sequence[int], norm: bool = False, output_scale: float = 1.0
) -> Params:
    """Parameters of a multilayer perceptron: Xavier-uniform weights, zero biases.

    `sizes` are the widths of input, hidden layers and output: (2, 100, 100, 2) has two hidden
    layers. With `norm`, batch normalisation is applied to these: they have `scale0`, `shift0`, ...
    instead of a bias, which subtracting the mean would cancel. `output_scale` multiplies the
    weights of the last layer. The order is `weight0` (sizes[0], sizes[1]), `bias0` (sizes[1],), ...
    """
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        params[f"weight{layer}"] = uniform(generator, (fan_in, fan_out), fan_in, fan_out)
        # the output layer is never normalised: its scale and sign are those of the targets
        if norm and layer < len(sizes) - 2:
            params |= init_norm(layer, fan_out)
        else:
            params[f"bias{layer}"] = torch.zeros(fan_out)
    if output_scale != 1.0:  # policies: a small scale begins with nearly equal distributions
        params[f"weight{len(sizes) - 2}"] *= output_scale
    return params


def mlp(
    params: Mapping[str, Tensor], inputs: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Outputs (M, O) for inputs (M, S); (N, M, O) for (N, M, S) where the parameters are stacked.

    There is no activation after the last layer. Further entries of `params` are ignored.
    """
    return affine(params, depth(params) - 1, mlp_features(params, inputs, activation))


def mlp_features(
    params: Mapping[str, Tensor], inputs: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """The inputs of the last layer of `mlp`: (M, F), or (N, M, F)."""
    hidden = inputs
    for layer in range(depth(params) - 1):
        if f"scale{layer}" in params:
            hidden = hidden @ params[f"weight{layer}"]
            # normalise over the samples of each task: tasks become groups of channels
            channels = tasks_as_channels(hidden)
            hidden = tasks_as_axis(normalise(channels, *scale_and_shift(params, layer)), hidden)
        else:
            hidden = affine(params, layer, hidden)
        hidden = activation(hidden)
    return hidden
