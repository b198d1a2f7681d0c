"""Building blocks of networks: initialisation, affine maps, tasks as groups of channels."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metarl.config.sections import Section
from metarl.params import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class Layered(Section):
    """A network with numbered layers, `weight0`, `bias0`, ...; the last one is linear."""

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        return head(params)

    def new_head(self, params: Params, outputs: int) -> Params:
        weight, bias = head(params)
        zeros = params[weight].new_zeros
        return params | {weight: zeros(len(params[weight]), outputs), bias: zeros(outputs)}


def last_layer(layer: int) -> list[str]:
    """The names of the parameters of layer number `layer`."""
    return [f"weight{layer}", f"bias{layer}"]


def head(params: Mapping[str, Tensor]) -> list[str]:
    """The names of the last layer's parameters."""
    return last_layer(depth(params) - 1)


def depth(params: Mapping[str, Tensor]) -> int:
    """Number of layers."""
    return sum(name.startswith("weight") for name in params)


def uniform(generator: torch.Generator, size: tuple[int, ...], fan_in: int, fan_out: int) -> Tensor:
    """Xavier-uniform weights (Glorot and Bengio 2010)."""
    # U(−b, b) has the variance b² / 3: 2 / (fan_in + fan_out)
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return (2.0 * torch.rand(size, generator=generator) - 1.0) * bound


def init_norm(layer: int, width: int) -> Params:
    """Scale and shift of a normalised layer."""
    return {f"scale{layer}": torch.ones(width), f"shift{layer}": torch.zeros(width)}


def affine(params: Mapping[str, Tensor], layer: int, inputs: Tensor) -> Tensor:
    """Inputs (..., M, F) times the layer's weight, plus its bias."""
    weight, bias = params[f"weight{layer}"], params[f"bias{layer}"]
    if weight.dim() == inputs.dim() == 3:  # one fused kernel for stacked tasks
        return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
    return inputs @ weight + bias.unsqueeze(-2)


def scale_and_shift(params: Mapping[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """The parameters of `init_norm`."""
    return params[f"scale{layer}"], params[f"shift{layer}"]


def tasks_as_channels(inputs: Tensor) -> Tensor:
    """(N, M, F, ...) to (M, N·F, ...); inputs without a task axis are returned unchanged."""
    # vectors (M, F) and images (M, C, H, W) have two and four axes without that of the tasks
    return inputs.movedim(0, 1).flatten(1, 2) if inputs.dim() in (3, 5) else inputs


def tasks_as_axis(channels: Tensor, like: Tensor) -> Tensor:
    """The inverse of `tasks_as_channels(like)`."""
    if like.dim() not in (3, 5):
        return channels
    return channels.view(len(channels), len(like), -1, *channels.shape[2:]).movedim(1, 0)
