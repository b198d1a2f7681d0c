"""Stochastic policies as stateless functions of a parameter dictionary.

A policy is a description (sizes, activation); its parameters live outside. Everything works on one
parameter dictionary with inputs (M, S), or on parameters stacked over tasks with inputs (N, M, S).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from metarl.context import concat_context, with_context, without_context
from metarl.envs.family import check_spaces
from metarl.envs.observations import FlatImage, flat_space
from metarl.errors import UserError
from metarl.networks.layers import ACTIVATIONS, last_layer
from metarl.networks.mlp import init_mlp, mlp
from metarl.networks.module import FunctionalModule, functional_module
from metarl.params import Params
from metarl.rl.config import IMAGE_NETWORK, MLP, POLICY_NETWORKS
from metarl.rl.trajectories import Distribution

Memory = tuple[Tensor, ...]
Noise = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class ActionDistribution(Protocol):
    """The action distribution of a policy, as the losses use it."""

    def distribution(self, params: Mapping[str, Tensor], observations: Tensor) -> Distribution:
        """Parameters of the action distribution at observations (..., M, S)."""

    def log_prob(self, distribution: Distribution, actions: Tensor) -> Tensor:
        """Log-probability of each action, (..., M)."""

    def kl(self, old: Distribution, new: Distribution) -> Tensor:
        """KL(old ‖ new) at each observation, (..., M)."""

    def fisher(self, distribution: Distribution, tangent: Distribution) -> Distribution:
        """The Fisher matrix of the distribution's own parameters, times a tangent of them."""


class Policy(ActionDistribution, Protocol):
    """A policy, as the sampler and the losses use it."""

    @property
    def observation_size(self) -> int:
        """S."""

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action."""

    @property
    def action_dtype(self) -> torch.dtype:
        """Type of an action."""

    @property
    def action_size(self) -> int:
        """A, or the number of discrete actions."""

    @property
    def image(self) -> tuple[int, int, int] | None:
        """(C, H, W) where an observation is an image, laid out in a row; None otherwise."""

    @property
    def head(self) -> list[str]:
        """The names of the last layer's parameters."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        """The memory of `shape` policies before the first step; () without recurrence."""

    def step(
        self, params: Mapping[str, Tensor], memory: Memory, observations: Tensor
    ) -> tuple[Distribution, Memory]:
        """The action distribution at observations (..., M, S), and the next memory."""

    def remember(self, memory: Memory, actions: Tensor, rewards: Tensor, ended: Tensor) -> Memory:
        """The memory with a step's actions (..., M, A), rewards and ends (..., M)."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Noise:
        """The noise of `shape` actions, drawn ahead of time: `shape` + the noise of one action."""

    def act(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """Actions: a deterministic function of the distribution and the noise."""

    def entropy(self, distribution: Distribution) -> Tensor:
        """Entropy of each action distribution, (..., M) or broadcastable to it."""


@dataclass(frozen=True)
class FeedforwardPolicy:
    """A policy whose distribution depends on the present observation alone.

    Attributes:
        observation_size: S.
        action_size: A, or the number of discrete actions.
        hidden_sizes: widths of the hidden layers.
        activation: `relu` or `tanh`.
        output_scale: factor on the last layer's weights at initialisation.
        network: in place of the multilayer perceptron, which the three before describe.
        image: (C, H, W) if an observation is a flattened image; None otherwise.
        context: the number of context parameters, which the network takes beside the observation;
            see `metarl.context`.
    """

    observation_size: int
    action_size: int
    hidden_sizes: tuple[int, ...] = (100, 100)
    activation: str = "relu"
    output_scale: float = field(default=1.0, kw_only=True)
    network: FunctionalModule | None = field(default=None, kw_only=True)
    image: tuple[int, int, int] | None = field(default=None, kw_only=True)
    context: int = field(default=0, kw_only=True)

    def init_network(self, generator: torch.Generator, outputs: int) -> Params:
        """Fresh parameters of the network: Xavier weights and zero biases, or a module's own."""
        if self.network is not None:
            return with_context(self.network.init(generator), self.context)
        sizes = (self.observation_size + self.context, *self.hidden_sizes, outputs)
        # the context is zero before adaptation, but its weights are not: they carry the gradient
        params = init_mlp(generator, sizes, output_scale=self.output_scale)
        return with_context(params, self.context)

    def outputs(self, params: Mapping[str, Tensor], observations: Tensor) -> Tensor:
        """The network's outputs (..., M, O) at observations (..., M, S)."""
        inputs = concat_context(params, observations)
        if self.network is not None:
            shape = self.image or (self.observation_size + self.context,)
            network_inputs = inputs.reshape(*inputs.shape[:-1], *shape)
            return self.network(without_context(params), network_inputs)
        return mlp(params, inputs, ACTIVATIONS[self.activation])

    @property
    def last_layer(self) -> list[str]:
        """The names of its last layer's parameters."""
        if self.network is not None:
            return self.network.head
        return last_layer(len(self.hidden_sizes))

    def from_outputs(self, params: Mapping[str, Tensor], outputs: Tensor) -> Distribution:
        """The distribution with the network's outputs (..., M, O)."""
        raise NotImplementedError

    def distribution(self, params: Mapping[str, Tensor], observations: Tensor) -> Distribution:
        return self.from_outputs(params, self.outputs(params, observations))

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        return ()

    def step(
        self, params: Mapping[str, Tensor], memory: Memory, observations: Tensor
    ) -> tuple[Distribution, Memory]:
        return self.distribution(params, observations), memory

    def remember(self, memory: Memory, actions: Tensor, rewards: Tensor, ended: Tensor) -> Memory:
        return memory


@dataclass(frozen=True)
class GaussianPolicy(FeedforwardPolicy):
    """A diagonal Gaussian: the network gives its mean, a free vector its log standard deviation.

    The log standard deviation does not depend on the observation and adapts like every other
    parameter (Finn et al. 2017, appendix A.2). Log-probabilities are those of the sampled action;
    environments clip it themselves.

    Attributes:
        init_std: standard deviation at initialisation.
        min_std: lower bound that the standard deviation is clamped to.
    """

    init_std: float = 1.0
    min_std: float = 1e-6

    action_dtype = torch.float32

    @property
    def action_shape(self) -> tuple[int, ...]:
        return (self.action_size,)

    @property
    def head(self) -> list[str]:
        return [*self.last_layer, "log_std"]

    def init(self, generator: torch.Generator) -> Params:
        params = self.init_network(generator, self.action_size)
        params["log_std"] = torch.full((self.action_size,), math.log(self.init_std))
        return params

    def from_outputs(self, params: Mapping[str, Tensor], outputs: Tensor) -> Distribution:
        """`mean` (..., M, A), the network's outputs, and `log_std` (..., 1, A)."""
        log_std = params["log_std"].clamp(min=math.log(self.min_std)).unsqueeze(-2)
        return {"mean": outputs, "log_std": log_std}

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Noise:
        """Standard normal draws, shape + (A,)."""
        return rng.standard_normal((*shape, self.action_size), dtype=np.float32)

    def act(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """Mean + std · noise."""
        # the reparameterised sample μ + σ ε: a function of noise that was drawn ahead of time
        return distribution["mean"] + distribution["log_std"].exp() * noise

    def log_prob(self, distribution: Distribution, actions: Tensor) -> Tensor:
        """The sum over action dimensions of the log-densities."""
        log_std = distribution["log_std"]
        # log N(a; μ, σ²) = −½ ((a − μ)/σ)² − log σ − ½ log 2π, summed over dimensions
        standardised = (actions - distribution["mean"]) * (-log_std).exp()
        constant = log_std.sum(-1) + 0.5 * math.log(2.0 * math.pi) * self.action_size
        return -0.5 * standardised.square().sum(-1) - constant

    def entropy(self, distribution: Distribution) -> Tensor:
        """(..., 1): the same for every observation."""
        constant = 0.5 * (1.0 + math.log(2.0 * math.pi)) * self.action_size
        return distribution["log_std"].sum(-1) + constant

    def kl(self, old: Distribution, new: Distribution) -> Tensor:
        """The sum over action dimensions of the divergences of normals."""
        # KL(old ‖ new) = Σ ½ ((μ − μ')² + σ²)/σ'² − ½ + log σ' − log σ, with ' for new
        precision = (-2.0 * new["log_std"]).exp()
        variance = (2.0 * old["log_std"]).exp()
        squares = (old["mean"] - new["mean"]).square() * precision
        return 0.5 * (squares.sum(-1) + (variance * precision).sum(-1) - self.action_size) + (
            new["log_std"] - old["log_std"]
        ).sum(-1)

    def fisher(self, distribution: Distribution, tangent: Distribution) -> Distribution:
        """1/σ² for the mean and 2 for log σ, from the second derivatives of `kl` at equality."""
        precision = (-2.0 * distribution["log_std"]).exp()
        # log_std has one row for all observations: its tangent counts once for each
        log_std = (2.0 * tangent["log_std"]).expand_as(tangent["mean"])
        return {"mean": precision * tangent["mean"], "log_std": log_std}


@dataclass(frozen=True)
class CategoricalPolicy(FeedforwardPolicy):
    """A softmax over discrete actions, whose logits the network gives."""

    action_shape = ()
    action_dtype = torch.int64

    @property
    def head(self) -> list[str]:
        return self.last_layer

    def init(self, generator: torch.Generator) -> Params:
        return self.init_network(generator, self.action_size)

    def from_outputs(self, params: Mapping[str, Tensor], outputs: Tensor) -> Distribution:
        """`logits` (..., M, K), normalised: log-probabilities."""
        # normalised once: log-probability, entropy and divergence then need no sum of their own
        return {"logits": outputs.log_softmax(-1)}

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Noise:
        """Standard Gumbel draws, shape + (K,)."""
        return rng.gumbel(size=(*shape, self.action_size)).astype(np.float32)

    def act(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """The Gumbel-max trick: arg max of logits + noise is a draw from the softmax."""
        # arg max (log p + g) with Gumbel noise g is a sample from p, again a function of the noise
        return (distribution["logits"] + noise).argmax(-1)

    def log_prob(self, distribution: Distribution, actions: Tensor) -> Tensor:
        """The logit of the action taken."""
        return distribution["logits"].gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def one_hot(self, actions: Tensor) -> Tensor:
        """Actions as inputs of a network, (..., M, K)."""
        return one_hot(actions, self.action_size)

    def entropy(self, distribution: Distribution) -> Tensor:
        """−Σ p log p."""
        logits = distribution["logits"]
        return -(logits.exp() * logits).sum(-1)

    def kl(self, old: Distribution, new: Distribution) -> Tensor:
        """Σ p (log p − log q)."""
        return (old["logits"].exp() * (old["logits"] - new["logits"])).sum(-1)

    def fisher(self, distribution: Distribution, tangent: Distribution) -> Distribution:
        """(diag p − p pᵀ) times the tangent: the Hessian of log-sum-exp."""
        probabilities = distribution["logits"].exp()
        weighted = probabilities * tangent["logits"]
        # Fisher = Cov of the indicator vector e_a: E[e eᵀ] − E[e] E[e]ᵀ
        return {"logits": weighted - probabilities * weighted.sum(-1, keepdim=True)}


@dataclass(frozen=True)
class MultiCategoricalPolicy(CategoricalPolicy):
    """Independent softmaxes over the components of a MultiDiscrete action: p(a) = Π p_d(a_d).

    The network gives all logits in a row; their number is `action_size`. Entropy and divergence are
    sums over components, and so are the formulas of a single softmax, applied to the row.

    Attributes:
        sizes: the number of choices of each component, (D,).
    """

    sizes: tuple[int, ...] = ()

    @property
    def action_shape(self) -> tuple[int, ...]:  # type: ignore[override] # () of a single softmax
        return (len(self.sizes),)

    def from_outputs(self, params: Mapping[str, Tensor], outputs: Tensor) -> Distribution:
        parts = torch.split(outputs, [*self.sizes], dim=-1)
        return {"logits": torch.cat([part.log_softmax(-1) for part in parts], dim=-1)}

    def act(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """The Gumbel-max trick for each component, (..., D)."""
        parts = torch.split(distribution["logits"] + noise, [*self.sizes], dim=-1)
        return torch.stack([part.argmax(-1) for part in parts], dim=-1)

    def log_prob(self, distribution: Distribution, actions: Tensor) -> Tensor:
        """The sum of the logits of the components taken."""
        # component d's choice a_d has the position n_1 + ... + n_{d-1} + a_d in the row of logits
        starts = actions.new_tensor([0, *self.sizes[:-1]]).cumsum(0)
        return distribution["logits"].gather(-1, actions + starts).sum(-1)

    def one_hot(self, actions: Tensor) -> Tensor:
        # one block of indicators per component, in the order of the logits
        columns = zip(actions.unbind(-1), self.sizes, strict=True)
        return torch.cat([one_hot(column, size) for column, size in columns], dim=-1)

    def fisher(self, distribution: Distribution, tangent: Distribution) -> Distribution:
        """(diag p − p pᵀ) times the tangent, in blocks."""
        probabilities = distribution["logits"].exp()
        weighted = probabilities * tangent["logits"]
        parts = torch.split(weighted, [*self.sizes], dim=-1)
        sums = [part.sum(-1, keepdim=True) for part in parts]
        totals = [total.expand_as(part) for total, part in zip(sums, parts, strict=True)]
        return {"logits": weighted - probabilities * torch.cat(totals, dim=-1)}


class PolicyHead:
    """An `ActionDistribution` whose observations are the network's outputs (..., M, O)."""

    def __init__(self, policy: GaussianPolicy | CategoricalPolicy) -> None:
        self.distribution = policy.from_outputs
        self.log_prob, self.kl, self.fisher = policy.log_prob, policy.kl, policy.fisher


def policy_for(
    observation_space: gym.Space[object],
    action_space: gym.Space[object],
    hidden_sizes: tuple[int, ...] = (100, 100),
    activation: str = "relu",
    init_std: float = 1.0,
    min_std: float = 1e-6,
    output_scale: float = 1.0,
    network: str | None = None,
    settings: Mapping[str, Any] | None = None,
    context: int = 0,
    default_generator: Callable[[], torch.Generator] = torch.Generator,
) -> GaussianPolicy | CategoricalPolicy:
    """The policy that fits an environment's spaces: Gaussian for a Box, otherwise categorical.

    Args:
        observation_space: of a single environment; it is flattened (`metarl.envs.observations`).
        action_space: of a single environment; a one-dimensional Box, Discrete or MultiDiscrete.
        hidden_sizes: widths of the hidden layers.
        activation: `relu` or `tanh`.
        init_std: initial standard deviation, for a Box.
        min_std: lower bound of the standard deviation, for a Box.
        output_scale: factor on the last layer's weights at initialisation.
        network: `mlp`, `cnn`, or `module:Class` of a `torch.nn.Module`; where None, a multilayer
            perceptron, or `cnn` for images.
        settings: of its constructor.
        context: how many context parameters it has.
        default_generator: of the buffers of a module that is used before its `init`.

    Raises:
        UserError: for other spaces (`metarl.envs.family.check_spaces`), or a network for images
            where observations are vectors.
    """
    flat = flat_space(observation_space)
    check_spaces(flat, action_space)
    (size,) = flat.shape  # type: ignore[misc] # of a flat Box
    image = flat.image_shape if isinstance(flat, FlatImage) else None
    sizes: tuple[int, ...] = ()  # the number of choices of each component
    if isinstance(action_space, gym.spaces.MultiDiscrete):
        sizes = tuple(action_space.nvec.tolist())
    discrete = isinstance(action_space, gym.spaces.Discrete)
    count = int(action_space.n) if discrete else sum(sizes) or action_space.shape[0]  # type: ignore[attr-defined, index]
    module: FunctionalModule | None = None
    if network is None and image:
        network = IMAGE_NETWORK
    if network is not None and network != MLP:
        perceptron = {"hidden_sizes": hidden_sizes, "activation": activation}
        offered = perceptron | {"output_scale": output_scale} if network in POLICY_NETWORKS else {}
        shape = image or (size + context,)
        if network == IMAGE_NETWORK and not image:
            raise UserError(
                f"policy.network={network}: takes images, but an observation is a vector of {size} "
                "numbers; leave it out"
            )
        module = functional_module(
            POLICY_NETWORKS, network, settings or {}, shape, count, offered, default_generator
        )
    layers = {"hidden_sizes": hidden_sizes, "activation": activation, "output_scale": output_scale}
    shared: dict[str, Any] = {**layers, "network": module, "image": image, "context": context}
    if sizes:
        return MultiCategoricalPolicy(size, count, **shared, sizes=sizes)
    if discrete:
        return CategoricalPolicy(size, count, **shared)
    return GaussianPolicy(size, count, **shared, init_std=init_std, min_std=min_std)
