"""Recurrent hypernetworks (Beck et al. 2023, arXiv 2309.14970).

RL² whose recurrent unit does not choose actions itself: the weights of a network from observation
to action, the base network, are a linear function of its state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.baselines.rl2 import HEADS_OBSERVE, RL2, RecurrentPolicy, RL2Settings
from metarl.config.sections import MethodSection, PositiveInt
from metarl.networks.layers import ACTIVATIONS, affine, depth, uniform
from metarl.params import Params, split_prefix
from metarl.rl.config import Config
from metarl.rl.trajectories import Distribution

HYPER, BOTTLENECK = "hyper.", "bottleneck."


class HypernetworkSettings(RL2Settings):
    """The settings of RL²; `head_sizes` are the hidden layers of the base network.

    With `bottleneck_size`, weights are a linear function of so many features of the unit's state,
    of one layer with `policy.activation`, as in the code of Beck et al. (25 of 256).
    """

    name: Literal["hypernetwork"] = "hypernetwork"  # type: ignore[assignment] # not "rl2"
    bottleneck_size: PositiveInt | None = None


@dataclass(frozen=True)
class HypernetworkPolicy(RecurrentPolicy):
    """A recurrent unit, and base networks whose weights are a linear function of its state.

    A layer of a base network, with the state z (K,) of the unit, is

        x ↦ x (W + Σₖ zₖ Vₖ) + b + Σₖ zₖ cₖ

    W and b are initialised like those of any policy, V and c are zero, so that the base network has
    a usual initialisation whatever the state is (Bias-HyperInit, Beck et al. 2022, section 4). The
    names of V and c are those of W and b after `hyper.`.

    Attributes:
        bottleneck_size: K, the number of features of the state that weights depend on; None for
            the state itself.
    """

    bottleneck_size: int | None = None

    def init_heads(self, generator: torch.Generator) -> Params:
        params, size = super().init_heads(generator), self.bottleneck_size or self.hidden_size
        layers = {name: leaf for name, leaf in params.items() if name != "log_std"}
        for name, leaf in layers.items():
            params[f"{HYPER}{name}"] = torch.zeros(size, *leaf.shape)
        if self.bottleneck_size:
            shape = (self.hidden_size, size)
            params[f"{BOTTLENECK}weight"] = uniform(generator, shape, *shape)
            params[f"{BOTTLENECK}bias"] = torch.zeros(size)
        return params

    def features(
        self, params: Mapping[str, Tensor], states: Tensor, observations: Tensor
    ) -> Tensor:
        if self.bottleneck_size:
            states = states @ params[f"{BOTTLENECK}weight"] + params[f"{BOTTLENECK}bias"]
            states = ACTIVATIONS[self.head_policy.activation](states)
        return torch.cat([states, observations], dim=-1)

    def distribution(self, params: Mapping[str, Tensor], observations: Tensor) -> Distribution:
        _, hyper = split_prefix(params, HYPER)
        outputs = self._base_network(params, hyper, observations)
        return self.head_policy.from_outputs(params, outputs)

    def value(self, params: Mapping[str, Tensor], features: Tensor) -> Tensor:
        _, hyper = split_prefix(params, HYPER)
        layers = self.value_layers(params), self.value_layers(hyper)
        return self._base_network(*layers, features).squeeze(-1)

    def _base_network(
        self, params: Mapping[str, Tensor], hyper: Mapping[str, Tensor], features: Tensor
    ) -> Tensor:
        state, hidden = features.tensor_split([-self.observation_size], dim=-1)
        for layer in range(depth(params)):
            if layer:
                hidden = ACTIVATIONS[self.head_policy.activation](hidden)
            generated = bilinear(state, hidden, hyper[f"weight{layer}"])
            hidden = affine(params, layer, hidden) + generated + state @ hyper[f"bias{layer}"]
        return hidden


def bilinear(state: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """Σₖ zₖ x Vₖ, (..., O), for states z (..., K), inputs x (..., I) and weights V (K, I, O).

    No weights (I, O) of a single state are made: they would be the largest tensors of all.
    """
    if weight.shape[1] < weight.shape[2]:  # by the smaller of K·I and K·O numbers a row
        return (state.unsqueeze(-1) * inputs.unsqueeze(-2)).flatten(-2) @ weight.flatten(0, 1)
    products = inputs @ weight.movedim(0, 1).flatten(1)
    return (state.unsqueeze(-1) * products.view(*products.shape[:-1], *weight.shape[::2])).sum(-2)


class Hypernetwork(RL2):
    """Learns a recurrent unit that generates the policy of its task."""

    label: ClassVar[str] = "recurrent hypernetwork"
    Settings: ClassVar[type[MethodSection]] = HypernetworkSettings
    settings: HypernetworkSettings

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        unused = super().unused_settings(config) | HEADS_OBSERVE
        if getattr(config.method, "bottleneck_size", None):
            unused.pop("policy.activation", None)
        return unused

    @cached_property
    def policy(self) -> HypernetworkPolicy:
        settings, size = self.settings, self.problem.policy.observation_size
        return HypernetworkPolicy(
            self.head_policy(size),
            size,
            settings.hidden_size,
            settings.embedding_sizes,
            bottleneck_size=settings.bottleneck_size,
        )
