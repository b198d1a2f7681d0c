"""A learned optimiser (Andrychowicz et al. 2016): an LSTM that maps gradients to updates.

Each parameter θ of the optimised network, the optimisee, has an LSTM of its own; all share their
weights φ (section 2.1):

    θ_{t+1} = θ_t + g_t,    (g_t, h_{t+1}) = m(∇_t, h_t; φ)

φ minimises the mean of the optimisee's losses along its path, 1/T Σ_t L(θ_t) (equation 3 with equal
w_t), on the query set: the gradients ∇_t are those of the support set.
Unlike MAML and the meta-LSTM, it does not learn initial parameters: θ_0 is random.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.baselines.meta_lstm import MetaLSTM, from_rows, preprocessed, stacked_rows
from metarl.config.sections import MethodSection, PositiveFloat, PositiveInt
from metarl.parallel import move
from metarl.params import Params, repeat
from metarl.rng import make_torch_rng
from metarl.supervised.losses import LossSettings
from metarl.supervised.tasks import Episodes, Examples

LAYERS = 2
INPUTS = 2  # a preprocessed gradient: magnitude and sign
State = list[tuple[Tensor, Tensor]]  # of each layer: h and c of each parameter, (R, H)


class LearnedOptimizerSettings(LossSettings):
    """The learned optimiser: `hidden_size` of its two LSTM layers, and truncation.

    `unroll` is the number of steps through which φ is differentiated; paths of more `inner.steps`
    are cut into segments of this length. The output of the LSTM is multiplied by `output_scale`, so
    that the first updates are small. In the paper: 20 units, 20 steps, paths of 100 steps.
    """

    name: Literal["learned_optimizer"] = "learned_optimizer"
    hidden_size: PositiveInt = 20
    unroll: PositiveInt = 20
    output_scale: PositiveFloat = 0.1


class LearnedOptimizer(MetaLSTM):
    """Learns an optimiser for random initial parameters."""

    label: ClassVar[str] = "learned optimiser"
    Settings: ClassVar[type[MethodSection]] = LearnedOptimizerSettings

    def init(self, generator: torch.Generator) -> Params:
        """The weights of the learned optimiser."""
        return init_optimizer(generator, self.settings.hidden_size)

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """The mean of the query losses after each step of a path from new initial parameters."""
        inputs, targets = episodes.query
        steps = self.problem.config.inner.steps
        start = self.optimisee(self.problem.config.seed, iteration)
        losses = []
        path = self.path(params, start, episodes.support, steps)
        next(path)  # θ_0, on whose loss φ has no effect
        for theta in path:
            outputs = self.problem.network(theta, inputs)
            losses.append(self.problem.loss(outputs, targets))
        return torch.stack(losses).mean(), outputs

    def stages(
        self, params: Params, support: Examples, step_sizes: Sequence[float]
    ) -> Iterator[Params]:
        """From the same θ_0 for all tasks."""
        start = self.optimisee(self.problem.config.evaluation.seed)
        return self.path(params, start, support, len(step_sizes))

    def optimisee(self, seed: int, *index: int) -> Params:
        """Random initial parameters θ_0 of the network."""
        return self.problem.init_network(make_torch_rng(seed, "optimisee", *index))

    def path(
        self, params: Params, start: Params, support: Examples, steps: int
    ) -> Iterator[Params]:
        """The parameters of stacked tasks after 0, 1, 2, ... steps.

        Args:
            params: φ, as returned by `init`.
            start: θ_0, not stacked.
            support: the support sets of N tasks, whose loss is minimised.
            steps: the number of updates.
        """
        theta = repeat(move(start, support[0].device), len(support[1]))
        yield theta
        rows, like = stacked_rows(theta), theta
        state = [(rows.new_zeros(rows.numel(), self.settings.hidden_size),) * 2] * LAYERS
        for step in range(steps):
            if step and step % self.settings.unroll == 0:  # truncated backpropagation through time
                rows, state = rows.detach(), [(h.detach(), c.detach()) for h, c in state]
            gradient, _ = self.support_gradient(from_rows(rows, like), support)
            update, state = optimizer_step(params, gradient, state)
            rows = rows + self.settings.output_scale * update
            yield from_rows(rows, like)

    def reported_step_sizes(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        """The scale of the updates: the learned optimiser has no step size."""
        return (self.settings.output_scale,) * len(step_sizes)


def init_optimizer(generator: torch.Generator, hidden_size: int) -> Params:
    """Weights of two LSTM layers and of a linear output: uniform in ±1/√H, forget bias 1."""

    def uniform(*size: int) -> Tensor:
        return (2 * torch.rand(size, generator=generator) - 1) / math.sqrt(hidden_size)

    params: Params = {}
    gates = 4 * hidden_size
    for layer, width in enumerate([INPUTS] + [hidden_size] * (LAYERS - 1)):
        params |= {
            f"inputs{layer}": uniform(gates, width),
            f"hidden{layer}": uniform(gates, hidden_size),
            f"bias{layer}": torch.zeros(gates),
        }
        # gates are stacked in torch's order: input, forget, candidate, output
        params[f"bias{layer}"][hidden_size : 2 * hidden_size] = 1.0
    return params | {"output": uniform(hidden_size)}


def optimizer_step(
    params: Mapping[str, Tensor], gradient: Tensor, state: State
) -> tuple[Tensor, State]:
    """One step of the LSTM of each parameter.

    Args:
        params: φ, as returned by `init_optimizer`.
        gradient: of P parameters in N tasks, (N, P).
        state: of the R = N·P parameters, as returned by the previous call.

    Returns:
        The updates (N, P), and the new state.
    """
    inputs, after = preprocessed(gradient).flatten(0, 1), []
    for layer, hidden in enumerate(state):
        bias = params[f"bias{layer}"]
        weights = params[f"inputs{layer}"], params[f"hidden{layer}"], bias
        after.append(torch.lstm_cell(inputs, hidden, *weights, torch.zeros_like(bias)))
        inputs = after[-1][0]
    update: Tensor = inputs @ params["output"]
    return update.view_as(gradient), after
