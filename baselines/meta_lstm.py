"""Meta-LSTM (Ravi and Larochelle 2017): a learned optimiser with a learned initialisation.

The parameters θ of the adapted network are the cell state of an LSTM (equations 4 to 6):

    θ_t = f_t ⊙ θ_{t−1} − i_t ⊙ ∇_t
    f_t = σ(W_f [h_t, θ_{t−1}, f_{t−1}] + b_f)      forget gate
    i_t = σ(W_i [h_t, θ_{t−1}, i_{t−1}] + b_i)      input gate: the step size

h_t is the state of a second, smaller LSTM whose inputs are the preprocessed gradient ∇_t and loss.
The weights are shared by all parameters; each parameter has its own state. The initial cell state
θ_0 is learned too, as in MAML.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.func import vmap

from metarl.config.sections import INNER_STEP, MethodSection, PositiveInt
from metarl.inner_loop import reverse
from metarl.params import Params, flatten, repeat, split_prefix, unflatten, with_added, with_prefix
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import LossSettings
from metarl.supervised.maml import MAML
from metarl.supervised.tasks import Examples

PREFIX = "rule."  # of the names of the learned optimiser's weights
P = 10.0  # of the preprocessing (Andrychowicz et al. 2016, appendix A)
INPUTS = 4  # gradient and loss, two numbers each


class MetaLSTMSettings(LossSettings):
    """`hidden_size` of the LSTM whose inputs are gradients and losses.

    The paper's outer step is `outer: {learning_rate: 1e-3, clip: 0.25, meta_batch: 1}`. It takes 12
    inner steps for one shot, and 5 for five shots.
    """

    name: Literal["meta_lstm"] = "meta_lstm"
    hidden_size: PositiveInt = 20


class MetaLSTM(MAML):
    """Learns an optimiser, and initial parameters for it."""

    label: ClassVar[str] = "meta-LSTM"
    Settings: ClassVar[type[MethodSection]] = MetaLSTMSettings

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        names = {*INNER_STEP, "inner.multi_step_iterations"} - {"inner.steps"}
        return dict.fromkeys(names, "which learns the whole step") | {
            "baseline.": "which is not a baseline"
        }

    def init(self, generator: torch.Generator) -> Params:
        theta = self.problem.init_network(generator)
        rule = init_rule(generator, self.settings.hidden_size)
        return with_added(theta, with_prefix(rule, PREFIX))

    def stages(
        self, params: Params, support: Examples, step_sizes: Sequence[float]
    ) -> Iterator[Params]:
        """Equations 4 to 6. Only the number of `step_sizes` matters: they are learned."""
        theta, rule = split_prefix(params, PREFIX)
        theta = repeat(theta, len(support[1]))
        yield theta
        cell = stacked_rows(theta)
        state = init_state(rule, cell)
        for _ in step_sizes:
            # the loss is that of the whole support set at each step
            gradient, losses = self.support_gradient(theta, support)
            cell, state = rule_step(rule, cell, gradient, losses, state)
            theta = from_rows(cell, theta)
            yield theta

    def support_gradient(self, theta: Params, support: Examples) -> tuple[Tensor, Tensor]:
        """The gradient (N, P) and the losses (N,) of stacked tasks, as constants.

        They depend on earlier steps, but are not differentiated (section 3.3 of the paper).
        """
        inputs, targets = support
        losses: list[Tensor] = []

        def total_loss(theta: Params) -> Tensor:
            outputs = self.problem.network(theta, inputs)
            # losses per task, as inputs of the learned optimiser; `loss` itself sums over tasks
            tasks = zip(torch.split(outputs, 1), torch.split(targets, 1), strict=True)
            losses.append(torch.stack([self.problem.loss(*task) for task in tasks]))
            return losses[-1].sum()

        gradient = reverse(total_loss)({name: leaf.detach() for name, leaf in theta.items()})
        return stacked_rows(gradient).detach(), losses[-1].detach()

    def reported_step_sizes(self, params: Params, step_sizes: Sequence[float]) -> tuple[float, ...]:
        # the input gate at zero input is of the order of a step size
        return (float(params[PREFIX + "input_bias"].sigmoid()),) * len(step_sizes)


# stacked parameters to one row per task, (N, P), and back, with stacked parameters for the shapes
stacked_rows, from_rows = vmap(flatten), vmap(unflatten)
State = tuple[Tensor, Tensor, Tensor, Tensor]  # of each parameter: h and c (R, H), f and i (R,)


def init_rule(generator: torch.Generator, hidden_size: int) -> Params:
    """Small weights, with biases that put the forget gate near one and the input gate near zero.

    Adaptation is then initially gradient descent with a small step size (section 4.1 of the paper).
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


def init_state(rule: Mapping[str, Tensor], cell: Tensor) -> State:
    """The state of each parameter before the first step: zeros."""
    hidden = cell.new_zeros(cell.numel(), rule["lstm_hidden"].shape[1])
    gate = cell.new_zeros(cell.numel())
    return hidden, hidden, gate, gate


def rule_step(
    rule: Mapping[str, Tensor], cell: Tensor, gradient: Tensor, losses: Tensor, state: State
) -> tuple[Tensor, State]:
    """One step of the learned optimiser: θ ← f ⊙ θ − i ⊙ ∇ (equations 4 to 6).

    Args:
        rule: the weights, as returned by `init_rule`.
        cell: θ of N tasks, (N, P).
        gradient: (N, P).
        losses: (N,).
        state: of R = N·P parameters, as returned by the previous call.

    Returns:
        The new cell state (N, P), and the new state.
    """
    hidden, memory, forget_gate, input_gate = state
    # every parameter of a task has the task's loss as an input, in addition to its own gradient
    loss_inputs = preprocessed(losses)[:, None].expand(*gradient.shape, 2)
    inputs = torch.cat([preprocessed(gradient), loss_inputs], dim=-1).flatten(0, 1)  # (R, 4)
    weights = rule["lstm_inputs"], rule["lstm_hidden"], rule["lstm_bias"]
    hidden, memory = torch.lstm_cell(
        inputs, (hidden, memory), *weights, torch.zeros_like(weights[-1])
    )
    theta = cell.flatten()

    def gate(name: str, previous: Tensor) -> Tensor:
        # W [h, θ, previous gate] without the concatenation: H + 2 numbers for each of R parameters
        w_hidden, w_theta, w_previous = torch.split(rule[name], [hidden.shape[1], 1, 1])
        total = hidden @ w_hidden + theta * w_theta + previous * w_previous
        return torch.sigmoid(total + rule[f"{name}_bias"])

    forget_gate, input_gate = gate("forget", forget_gate), gate("input", input_gate)
    # an LSTM's cell with the candidate −∇: f = 1 and i = α would be gradient descent
    theta = forget_gate * theta - input_gate * gradient.flatten()
    return theta.view_as(cell), (hidden, memory, forget_gate, input_gate)


def preprocessed(values: Tensor) -> Tensor:
    """Magnitude and sign of numbers (...) of any scale, (..., 2).

    (log|x| / p, sgn x) where |x| ≥ exp(−p), and (−1, exp(p) x) below (Andrychowicz et al. 2016).
    """
    size = values.abs()
    large = size >= math.exp(-P)
    magnitude = torch.where(large, size.clamp(min=math.exp(-P)).log() / P, -1.0)
    sign = torch.where(large, values.sign(), math.exp(P) * values)
    return torch.stack([magnitude, sign], dim=-1)
