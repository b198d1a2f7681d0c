"""Outer steps: how meta-parameters follow an objective. They know of no domain.

An optimiser is a section of the config with one verb, `step`, a pure function of the parameters and
of the optimiser's own state. `Adam` and `SGD` are here, the trust region in
`metarl.optim.trust_region`.
As parts of a config they are imported before torch, which takes a second: tensors are known by
their verbs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from metarl.config.registry import Registry
from metarl.config.sections import OuterSection, Positive, PositiveInt
from metarl.params import Params, flatten, unflatten

if TYPE_CHECKING:
    from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

DESCENTS = Registry(  # those that ask for a gradient alone
    "outer step", {"adam": "metarl.optim.first_order:Adam", "sgd": "metarl.optim.first_order:SGD"}
)
OUTER_STEPS = Registry("outer step", {"trpo": "metarl.optim.trust_region:TrustRegion", **DESCENTS})


class Objective(Protocol):
    """What is to grow, at any parameters. Adam asks for the gradient alone."""

    def minibatches(self) -> list[Objective]:
        """The same on parts of the data, one after the other; itself where it is not divided."""

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The gradient (P,), and the value."""

    def evaluate(self, theta: Params) -> tuple[float, float]:
        """The value, and the mean divergence from what the data were sampled with."""

    def curvature(self, theta: Params, fraction: float) -> Callable[[Tensor], Tensor]:
        """Products with the divergence's Hessian, estimated on a fraction of the samples."""


class Optimizer(Protocol):
    """The verb of an outer step; see `OuterSection` for what all of them have."""

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """The new parameters (the very same where nothing was better), the new state, metrics."""


class Adam(OuterSection):
    """Steps of Adam, several on the same data where `epochs` says so.

    `clip` bounds every single element of the gradient.
    """

    algorithm: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3
    clip: Positive | None = None
    epochs: PositiveInt = 1

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """As `Optimizer` has it.

        Raises:
            FloatingPointError: if a gradient is not finite.
        """
        rate = self.annealed(self.learning_rate, iteration)
        first: float | None = None
        for part in objective.minibatches() * self.epochs:
            gradient, value = part.gradient(theta)
            check_gradient(gradient)
            first = value if first is None else first
            if self.clip is not None:
                gradient = gradient.clamp(-self.clip, self.clip)
            theta, state = adam_step(theta, -gradient, state, rate)  # it minimises
        assert first is not None
        return theta, state, {"outer/objective": first}


class SGD(OuterSection):
    """Steps of plain gradient descent: θ moves by the learning rate times the gradient."""

    algorithm: Literal["sgd"] = "sgd"
    learning_rate: Positive = 1.0

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """As `Optimizer` has it; there is no state.

        Raises:
            FloatingPointError: if a gradient is not finite.
        """
        gradient, value = objective.gradient(theta)
        check_gradient(gradient)
        rate = self.annealed(self.learning_rate, iteration)
        theta = unflatten(flatten(theta).add(gradient, alpha=rate), theta)
        return theta, state, {"outer/objective": value}


def check_gradient(gradient: Tensor) -> None:
    """Stop before a step that would ruin the parameters.

    Raises:
        FloatingPointError: if the gradient is not finite.
    """
    if not gradient.isfinite().all():
        raise FloatingPointError(
            "the meta-gradient is not finite; lower the inner step size (inner.step_size) or the "
            "outer one (outer.learning_rate, outer.max_kl)"
        )


def adam_step(
    params: Params, gradient: Tensor, state: Params, learning_rate: float
) -> tuple[Params, Params]:
    """One step down a gradient (Kingma and Ba, 2015, algorithm 1).

    A function, because torch's own Adam is an object, and to make one for every step takes longer
    than the step: a tenth of an iteration on sinusoids.

    Args:
        params: to start from.
        gradient: (P,).
        state: as a previous call returned it; empty at first.
        learning_rate: the step's size.

    Returns:
        The new parameters, and the new state: `step`, and the moments `exp_avg` and `exp_avg_sq`
        (P,), as torch calls them.
    """
    zero = gradient.new_zeros(gradient.shape)
    step = state.get("step", gradient.new_zeros(())) + 1.0
    first = state.get("exp_avg", zero).lerp(gradient, 1.0 - BETA1)
    second = state.get("exp_avg_sq", zero).lerp(gradient * gradient, 1.0 - BETA2)
    count = float(step)
    size = learning_rate / (1.0 - BETA1**count)
    scale = second.sqrt().div_((1.0 - BETA2**count) ** 0.5).add_(EPSILON)
    vector = flatten(params).addcdiv(first, scale, value=-size)
    return unflatten(vector, params), {"step": step, "exp_avg": first, "exp_avg_sq": second}
