"""Meta-LSTM (Ravi and Larochelle 2017): the step that adapts a network is itself a network.

The parameters of the adapted network are the cell of an LSTM: a forget gate shrinks them, an input
gate is their step size, and what is put in is the gradient downhill. Both gates see what a smaller
LSTM makes of gradient and loss. One set of weights serves every parameter, each with a state of its
own; where the cell starts is learned as well, as in MAML.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from metarl.config.sections import MethodSection, reject_settings
from metarl.inner_loop import reverse
from metarl.method import GRADIENT_STEPS, AdaptationUnit, Role
from metarl.params import Params, flatten, repeat, unflatten
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.methods import MetaLSTMSettings
from metarl.supervised.prediction import predict_with
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.tasks import Episodes, Examples

PREFIX = "rule."  # what the names of the learned rule's weights begin with
P = 10.0  # of the preprocessing (Andrychowicz et al. 2016, appendix A)
INPUTS = 4  # gradient and loss, two numbers each


class MetaLSTM(SupervisedMethod):
    """Learns how to step, and where from."""

    role: ClassVar[Role] = "meta-learner"
    label: ClassVar[str] = "meta-LSTM"
    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS
    Settings: ClassVar[type[MethodSection]] = MetaLSTMSettings
    supports_distributed: ClassVar[bool] = True

    def __init__(self, problem: SupervisedProblem) -> None:
        super().__init__(problem)
        reject_settings(
            problem.config.inner,
            ["adapt", "learned_step_sizes", "multi_step_iterations"],
            problem.config.method,
            "whose steps are all learned",
        )

    def init(self, generator: torch.Generator) -> Params:
        """Where the cell starts, and the rule's weights."""
        tasks, settings = self.problem.tasks("train"), self.problem.config.method
        assert isinstance(settings, MetaLSTMSettings)
        theta = self.problem.network.init(generator, tasks.shape, tasks.outputs)
        rule = init_rule(generator, settings.hidden_size)
        return theta | {PREFIX + name: leaf for name, leaf in rule.items()}

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """The queries' loss after the last step."""
        inputs, targets = episodes.query
        *_, last = self.adapted(params, episodes.support, self.problem.config.inner.steps)
        outputs = self.problem.network(last, inputs)
        return self.problem.kind.loss(outputs, targets), outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """What the network predicts before adaptation, and after each step; of any size."""
        predict = predict_with(self.problem.config.evaluation.transductive)
        for theta in self.adapted(params, support, len(step_sizes)):
            yield predict(self.problem.network, theta, support, inputs)

    def adapted(self, params: Params, support: Examples, steps: int) -> Iterator[Params]:
        """The parameters of stacked tasks after 0, 1, 2, ... steps (equations 4 to 6)."""
        theta, rule = parts(params)
        theta = repeat(theta, len(support[1]))
        yield theta
        cell = stacked_rows(theta)
        state = init_cell_state(rule, cell)
        for _ in range(steps):
            gradient, losses = self.slopes(theta, support)
            cell, state = rule_step(rule, cell, gradient, losses, state)
            theta = from_rows(cell, theta)
            yield theta

    def slopes(self, theta: Params, support: Examples) -> tuple[Tensor, Tensor]:
        """The gradient (N, P) and the losses (N,) of stacked tasks, as constants.

        They depend on earlier steps, and are not differentiated (section 3.3 of the paper).
        """
        inputs, targets = support
        kind, seen = self.problem.kind, list[Tensor]()

        def total(theta: Params) -> Tensor:
            outputs = self.problem.network(theta, inputs)
            tasks = zip(torch.split(outputs, 1), torch.split(targets, 1), strict=True)
            seen.append(torch.stack([kind.loss(*task) for task in tasks]))
            return seen[-1].sum()

        gradient = reverse(total)({name: leaf.detach() for name, leaf in theta.items()})
        return stacked_rows(gradient).detach(), seen[-1].detach()

    @property
    def schedule(self) -> tuple[float, ...]:
        """As many steps as the evaluation has; their sizes are the rule's own."""
        config = self.problem.config
        return (config.inner.step_size,) * config.evaluation.steps

    @property
    def stage(self) -> str:
        """Scores of training are those after the last step."""
        return f"after_{self.problem.config.inner.steps}_steps"

    def told(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        """What the input gate is where it sees nothing: a step size of that order."""
        return (float(params[PREFIX + "input_bias"].sigmoid()),) * len(step_sizes)


# stacked parameters as one row a task, (N, P), and rows with the names and shapes of stacked ones
stacked_rows, from_rows = vmap(flatten), vmap(unflatten)
State = tuple[Tensor, Tensor, Tensor, Tensor]  # of every parameter: h and c (R, H), f and i (R,)


def init_rule(generator: torch.Generator, hidden_size: int) -> Params:
    """Weights of the rule: small, with a forget gate near one and an input gate near zero.

    So that it begins as gradient descent with a small step (section 4.1 of the paper).
    """

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    gates = 4 * hidden_size
    return {
        "lstm_inputs": uniform(-0.01, 0.01, gates, INPUTS),
        "lstm_hidden": uniform(-0.01, 0.01, gates, hidden_size),
        "lstm_bias": torch.zeros(gates),
        "forget": uniform(-0.01, 0.01, hidden_size + 2),
        "forget_bias": uniform(4.0, 6.0, 1),
        "input": uniform(-0.01, 0.01, hidden_size + 2),
        "input_bias": uniform(-5.0, -4.0, 1),
    }


def init_cell_state(rule: Mapping[str, Tensor], cell: Tensor) -> State:
    """What the rule remembers of each parameter before the first step: nothing."""
    hidden = cell.new_zeros(cell.numel(), rule["lstm_hidden"].shape[1])
    gate = cell.new_zeros(cell.numel())
    return hidden, hidden, gate, gate


def rule_step(
    rule: Mapping[str, Tensor], cell: Tensor, gradient: Tensor, losses: Tensor, state: State
) -> tuple[Tensor, State]:
    """One step of the rule: θ ← f θ − i ∇, where both gates are learned functions.

    Args:
        rule: as `init_rule` makes it.
        cell: θ of N tasks, (N, P).
        gradient: (N, P).
        losses: (N,).
        state: R = N·P rows, as a previous call returned it.

    Returns:
        The new cell (N, P), and the new state.
    """
    hidden, memory, forget, step = state
    told = preprocessed(losses)[:, None].expand(*gradient.shape, 2)
    seen = torch.cat([preprocessed(gradient), told], dim=-1).flatten(0, 1)
    weights = rule["lstm_inputs"], rule["lstm_hidden"], rule["lstm_bias"]
    hidden, memory = torch.lstm_cell(
        seen, (hidden, memory), *weights, torch.zeros_like(weights[-1])
    )
    theta = cell.flatten()

    def gate(name: str, before: Tensor) -> Tensor:
        of_hidden, of_theta, of_before = torch.split(rule[name], [hidden.shape[1], 1, 1])
        total = hidden @ of_hidden + theta * of_theta + before * of_before
        return torch.sigmoid(total + rule[f"{name}_bias"])

    forget, step = gate("forget", forget), gate("input", step)
    theta = forget * theta - step * gradient.flatten()
    return theta.view_as(cell), (hidden, memory, forget, step)


def preprocessed(values: Tensor) -> Tensor:
    """Magnitude and sign of numbers (...) of any scale, (..., 2).

    (log|x| / p, sgn x) where |x| ≥ exp(−p), and (−1, exp(p) x) below (Andrychowicz et al. 2016).
    """
    size = values.abs()
    large = size >= math.exp(-P)
    magnitude = torch.where(large, size.clamp(min=math.exp(-P)).log() / P, -1.0)
    sign = torch.where(large, values.sign(), math.exp(P) * values)
    return torch.stack([magnitude, sign], dim=-1)


def parts(params: Mapping[str, Tensor]) -> tuple[Params, Params]:
    """The network's parameters, and the rule's weights."""
    theta = {name: leaf for name, leaf in params.items() if not name.startswith(PREFIX)}
    rule = {
        name.removeprefix(PREFIX): leaf for name, leaf in params.items() if name.startswith(PREFIX)
    }
    return theta, rule
