"""Neural networks as stateless functions of a parameter dictionary."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from metarl.params import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


def init_mlp(generator: torch.Generator, sizes: Sequence[int]) -> Params:
    """Parameters of a multilayer perceptron: Xavier-uniform weights, zero biases.

    Args:
        generator: the source of randomness.
        sizes: widths of input, hidden layers and output; (2, 100, 100, 2) has two hidden layers.

    Returns:
        `weight0` (sizes[0], sizes[1]), `bias0` (sizes[1],), `weight1`, ... in this order.
    """
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        bound = math.sqrt(6.0 / (fan_in + fan_out))  # Glorot and Bengio (2010)
        uniform = torch.rand(fan_in, fan_out, generator=generator)
        params[f"weight{layer}"] = (2.0 * uniform - 1.0) * bound
        params[f"bias{layer}"] = torch.zeros(fan_out)
    return params


def mlp(
    params: Mapping[str, Tensor], inputs: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply the network; no activation after the last layer.

    Args:
        params: as made by `init_mlp`; further entries are ignored. Leaves may be stacked over
            tasks, (N, ...), and then serve inputs (N, M, S), all in one call a layer.
        inputs: (M, S), or (N, M, S).
        activation: applied between layers.

    Returns:
        (M, O), or (N, M, O).
    """
    depth = sum(name.startswith("weight") for name in params)
    hidden = inputs
    for layer in range(depth):
        hidden = hidden @ params[f"weight{layer}"] + params[f"bias{layer}"].unsqueeze(-2)
        if layer < depth - 1:
            hidden = activation(hidden)
    return hidden
