"""What layers have in common: initialisation, affine maps, tasks as groups of channels."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metarl.params import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


def last_layer(layer: int) -> list[str]:
    """The names of a network's last layer, of this number."""
    return [f"weight{layer}", f"bias{layer}"]


def head(params: Mapping[str, Tensor]) -> list[str]:
    """The names of the last layer's parameters."""
    return last_layer(depth(params) - 1)


def new_head(params: Params, outputs: int) -> Params:
    """The same parameters, with a last layer of zeros and another number of outputs."""
    weight, bias = head(params)
    zeros = params[weight].new_zeros
    return params | {weight: zeros(len(params[weight]), outputs), bias: zeros(outputs)}


def depth(params: Mapping[str, Tensor]) -> int:
    """How many layers there are."""
    return sum(name.startswith("weight") for name in params)


def uniform(generator: torch.Generator, size: tuple[int, ...], fan_in: int, fan_out: int) -> Tensor:
    """Weights of a size, Xavier-uniform."""
    bound = math.sqrt(6.0 / (fan_in + fan_out))  # Glorot and Bengio (2010)
    return (2.0 * torch.rand(size, generator=generator) - 1.0) * bound


def init_norm(layer: int, width: int) -> Params:
    """Scale and shift of a normalised layer."""
    return {f"scale{layer}": torch.ones(width), f"shift{layer}": torch.zeros(width)}


def affine(params: Mapping[str, Tensor], layer: int, inputs: Tensor) -> Tensor:
    """Inputs (..., M, F) times the layer's weight, plus its bias."""
    weight, bias = params[f"weight{layer}"], params[f"bias{layer}"]
    if weight.dim() == inputs.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
    return inputs @ weight + bias.unsqueeze(-2)


def scale_and_shift(params: Mapping[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """Those of a normalised layer."""
    return params[f"scale{layer}"], params[f"shift{layer}"]


def tasks_as_channels(inputs: Tensor) -> Tensor:
    """(N, M, F, ...) to (M, N·F, ...), where there is a task axis."""
    return inputs.movedim(0, 1).flatten(1, 2) if inputs.dim() in (3, 5) else inputs


def tasks_as_axis(channels: Tensor, like: Tensor) -> Tensor:
    """The inverse of `tasks_as_channels`."""
    if like.dim() not in (3, 5):
        return channels
    return channels.view(len(channels), len(like), -1, *channels.shape[2:]).movedim(1, 0)
