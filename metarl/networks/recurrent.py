"""A recurrent network: an embedding and a gated recurrent unit (Cho et al. 2014)."""

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metarl.networks.layers import uniform
from metarl.params import Params

EMBEDDING, UNIT = "embedding.", "unit."


def init_recurrent(
    generator: torch.Generator, inputs: int, hidden: int, embeddings: Sequence[tuple[int, int]] = ()
) -> Params:
    """Xavier weights, orthogonal recurrent weights, zero biases, for S inputs and F hidden units.

    `embeddings` are the size of each part of the input, and of its embedding; what remains of the
    input goes to the unit as it is. By default the whole input has one normalised embedding of size
    F.
    """
    # each gate by itself: a (3 F, F) matrix has orthogonal columns, not three orthogonal blocks
    gates = [torch.empty(hidden, hidden) for _ in range(3)]
    for gate in gates:
        torch.nn.init.orthogonal_(gate, generator=generator)
    params: Params = {}
    layers = {f"{i}.": sizes for i, sizes in enumerate(embeddings)} or {"": (inputs, hidden)}
    for layer, (fan_in, fan_out) in layers.items():
        params[f"{EMBEDDING}{layer}weight"] = uniform(generator, (fan_in, fan_out), fan_in, fan_out)
        params[f"{EMBEDDING}{layer}bias"] = torch.zeros(fan_out)
    size = hidden
    if embeddings:
        size = inputs + sum(fan_out - fan_in for fan_in, fan_out in embeddings)
    return params | {
        f"{UNIT}weight_ih_l0": uniform(generator, (3 * hidden, size), size, hidden),
        f"{UNIT}weight_hh_l0": torch.cat(gates),
        f"{UNIT}bias_ih_l0": torch.zeros(3 * hidden),
        f"{UNIT}bias_hh_l0": torch.zeros(3 * hidden),
    }


def recurrent_step(params: Mapping[str, Tensor], state: Tensor, inputs: Tensor) -> Tensor:
    """The next hidden state (M, F) for inputs (M, S)."""
    weights = [
        params[f"{UNIT}{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    # r, z = σ(W x + U h), n = tanh(W_n x + r ⊙ U_n h), h' = (1 − z) ⊙ n + z ⊙ h
    return torch.gru_cell(_embed(params, inputs), state, *weights)


def recurrent_sequence(params: Mapping[str, Tensor], state: Tensor, inputs: Tensor) -> Tensor:
    """The hidden states (H, M, F) for inputs (H, M, S), from an initial state (M, F)."""
    embedded = _embed(params, inputs)
    # a module without storage, called with our weights: nn.GRU is faster than a loop over gru_cell
    gru = torch.nn.GRU(embedded.shape[-1], state.shape[-1], device="meta")
    weights = {
        name.removeprefix(UNIT): leaf for name, leaf in params.items() if name.startswith(UNIT)
    }
    states, _ = functional_call(gru, weights, (embedded, state[None]))
    return states  # type: ignore[no-any-return]


def _embed(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    if f"{EMBEDDING}0.weight" in params:
        layers = takewhile(lambda i: f"{EMBEDDING}{i}.weight" in params, count())
        weights = [
            (params[f"{EMBEDDING}{i}.weight"], params[f"{EMBEDDING}{i}.bias"]) for i in layers
        ]
        sizes = [len(weight) for weight, _ in weights]
        *parts, remaining = torch.split(inputs, [*sizes, inputs.shape[-1] - sum(sizes)], -1)
        pairs = zip(parts, weights, strict=True)
        embedded = [torch.relu(part @ weight + bias) for part, (weight, bias) in pairs]
        return torch.cat([*embedded, remaining], dim=-1)
    # layer normalisation, because observations such as velocities of ±10 would saturate the gates
    hidden = torch.relu(inputs @ params[f"{EMBEDDING}weight"] + params[f"{EMBEDDING}bias"])
    return F.layer_norm(hidden, hidden.shape[-1:])
