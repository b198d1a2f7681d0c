"""Plain gradient ascent on the meta-objective."""

from __future__ import annotations

from typing import Literal

from metarl.config.sections import OuterSection, PositiveFloat
from metarl.optim.objective import Objective, check_gradient
from metarl.params import Params, flatten, unflatten


class SGD(OuterSection):
    """Gradient ascent without momentum: θ ← θ + learning_rate · ∇θ; it has no state."""

    algorithm: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 1.0

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """See `metarl.optim.Optimizer`.

        Raises:
            FloatingPointError: if the gradient is not finite.
        """
        gradient, value = objective.gradient(theta)
        check_gradient(gradient)
        rate = self.annealed(self.learning_rate, iteration)
        theta = unflatten(flatten(theta).add(gradient, alpha=rate), theta)
        return theta, state, {"outer/objective": value}
