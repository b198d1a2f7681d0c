"""Plain gradient ascent on the meta-objective."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from metarl.config.sections import PositiveFloat
from metarl.optim.gradient import GradientSection
from metarl.params import Params, flatten, unflatten


class SGD(GradientSection):
    """Gradient ascent without momentum: θ ← θ + learning_rate · ∇θ; it has no state."""

    algorithm: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 1.0

    def ascend(
        self, theta: Params, gradient: Tensor, state: Params, rate: float
    ) -> tuple[Params, Params]:
        return unflatten(flatten(theta).add(gradient, alpha=rate), theta), state
