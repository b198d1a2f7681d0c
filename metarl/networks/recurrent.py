"""A recurrent network: an embedding and a gated recurrent unit (Cho et al. 2014)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metarl.networks.layers import uniform
from metarl.params import Params

EMBEDDING, UNIT = "embedding.", "unit."


def init_recurrent(generator: torch.Generator, inputs: int, hidden: int) -> Params:
    """Xavier weights, orthogonal recurrent weights, zero biases.

    Args:
        generator: the source of randomness.
        inputs: size of an input.
        hidden: F, the size of the embedding and of the hidden state.
    """
    gates = [torch.empty(hidden, hidden) for _ in range(3)]
    for gate in gates:
        torch.nn.init.orthogonal_(gate, generator=generator)
    return {
        f"{EMBEDDING}weight": uniform(generator, (inputs, hidden), inputs, hidden),
        f"{EMBEDDING}bias": torch.zeros(hidden),
        f"{UNIT}weight_ih_l0": uniform(generator, (3 * hidden, hidden), hidden, hidden),
        f"{UNIT}weight_hh_l0": torch.cat(gates),
        f"{UNIT}bias_ih_l0": torch.zeros(3 * hidden),
        f"{UNIT}bias_hh_l0": torch.zeros(3 * hidden),
    }


def recurrent_step(params: Mapping[str, Tensor], state: Tensor, inputs: Tensor) -> Tensor:
    """The next hidden state (M, F) for inputs (M, S)."""
    weights = [
        params[f"{UNIT}{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    return torch.gru_cell(_embed(params, inputs), state, *weights)


def recurrent_sequence(params: Mapping[str, Tensor], state: Tensor, inputs: Tensor) -> Tensor:
    """The hidden states (H, M, F) for inputs (H, M, S), from an initial state (M, F)."""
    hidden = state.shape[-1]
    # a module without storage, called with our weights: nn.GRU is faster than a loop over gru_cell
    gru = torch.nn.GRU(hidden, hidden, device="meta")
    weights = {
        name.removeprefix(UNIT): leaf for name, leaf in params.items() if name.startswith(UNIT)
    }
    states, _ = functional_call(gru, weights, (_embed(params, inputs), state[None]))
    return states  # type: ignore[no-any-return]


def _embed(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    # layer normalisation, because observations such as velocities of ±10 would saturate the gates
    hidden = torch.relu(inputs @ params[f"{EMBEDDING}weight"] + params[f"{EMBEDDING}bias"])
    return F.layer_norm(hidden, hidden.shape[-1:])
