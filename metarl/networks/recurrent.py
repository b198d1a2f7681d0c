"""A recurrent network: embedding, gated recurrent unit (Cho et al. 2014), and its memory."""

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
        hidden: size of the embedding and of the memory.
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


def recurrent_step(params: Mapping[str, Tensor], memory: Tensor, inputs: Tensor) -> Tensor:
    """The memory (M, F) after one step with inputs (M, S)."""
    weights = [
        params[f"{UNIT}{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    return torch.gru_cell(_embedded(params, inputs), memory, *weights)


def recurrent_sequence(params: Mapping[str, Tensor], memory: Tensor, inputs: Tensor) -> Tensor:
    """The memories (H, M, F) after each step with inputs (H, M, S), from a memory (M, F)."""
    hidden = memory.shape[-1]
    # the module is a shell without weights of its own: torch's sequence is faster than its cells
    shell = torch.nn.GRU(hidden, hidden, device="meta")
    weights = {
        name.removeprefix(UNIT): leaf for name, leaf in params.items() if name.startswith(UNIT)
    }
    memories, _ = functional_call(shell, weights, (_embedded(params, inputs), memory[None]))
    return memories  # type: ignore[no-any-return]


def _embedded(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Layer-normalised: velocities of tens would saturate the unit's gates."""
    hidden = torch.relu(inputs @ params[f"{EMBEDDING}weight"] + params[f"{EMBEDDING}bias"])
    return F.layer_norm(hidden, hidden.shape[-1:])
