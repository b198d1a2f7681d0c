"""Adam (Kingma and Ba 2015) as a pure function and as an outer step."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from metarl.optim.gradient import GradientSection
from metarl.params import Params, flatten, unflatten

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam(GradientSection):
    """Steps of Adam; with `weight_decay`, those of AdamW."""

    algorithm: Literal["adam"] = "adam"

    def ascend(
        self, theta: Params, gradient: Tensor, state: Params, rate: float
    ) -> tuple[Params, Params]:
        return adam_step(theta, -gradient, state, rate)  # adam_step minimises


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
