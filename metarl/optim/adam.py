"""Adam (Kingma and Ba 2015) as a pure function and as an outer step."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from metarl.config.sections import OuterSection, PositiveFloat, PositiveInt
from metarl.optim.objective import Objective, check_gradient
from metarl.params import Params, flatten, unflatten

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam(OuterSection):
    """Adam steps: one for each minibatch of the objective, `epochs` times.

    `clip` bounds the absolute value of each element of the gradient.
    """

    algorithm: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    clip: PositiveFloat | None = None
    epochs: PositiveInt = 1

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """See `metarl.optim.Optimizer`; the state is that of `adam_step`.

        Raises:
            FloatingPointError: if a gradient is not finite.
        """
        rate = self.annealed(self.learning_rate, iteration)
        first_value: float | None = None
        for minibatch in objective.minibatches() * self.epochs:
            gradient, value = minibatch.gradient(theta)
            check_gradient(gradient)
            first_value = value if first_value is None else first_value
            if self.clip is not None:
                gradient = gradient.clamp(-self.clip, self.clip)
            theta, state = adam_step(theta, -gradient, state, rate)  # adam_step minimises
        assert first_value is not None
        return theta, state, {"outer/objective": first_value}


def adam_step(
    params: Params, gradient: Tensor, state: Params, learning_rate: float
) -> tuple[Params, Params]:
    """One descent step (Kingma and Ba 2015, algorithm 1).

        m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
        θ ← θ − α m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)

    A function, because constructing `torch.optim.Adam` for every step takes longer than the step
    itself (a tenth of an iteration on sinusoids).

    Args:
        params: the parameters θ.
        gradient: g, (P,).
        state: the state that the previous call returned; empty at first.
        learning_rate: α.

    Returns:
        The new parameters and the new state: `step` (t), `exp_avg` (m) and `exp_avg_sq` (v), the
        names that torch uses.
    """
    zero = gradient.new_zeros(gradient.shape)
    step = state.get("step", gradient.new_zeros(())) + 1.0
    mean = state.get("exp_avg", zero).lerp(gradient, 1.0 - BETA1)
    square = state.get("exp_avg_sq", zero).lerp(gradient * gradient, 1.0 - BETA2)
    t = float(step)
    size = learning_rate / (1.0 - BETA1**t)
    scale = square.sqrt().div_((1.0 - BETA2**t) ** 0.5).add_(EPSILON)
    vector = flatten(params).addcdiv(mean, scale, value=-size)
    return unflatten(vector, params), {"step": step, "exp_avg": mean, "exp_avg_sq": square}
