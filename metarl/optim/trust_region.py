"""Trust region policy optimisation (Schulman et al. 2015), on a parameter vector.

It is told nothing of tasks or of adaptation: it sees a gradient, curvature products, and a function
that evaluates the objective and the divergence at a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from metarl.config.sections import Bounded, Fraction, OuterSection, Positive, PositiveInt
from metarl.optim.first_order import Objective, check_gradient
from metarl.params import Params, flatten, unflatten

if TYPE_CHECKING:
    from torch import Tensor


class TrustRegion(OuterSection):
    """Trust region steps; the defaults are those of Finn et al. (2017).

    `max_kl` is δ, the largest mean divergence of an accepted step; `damping` is added to the
    curvature's diagonal; `curvature_fraction` of the samples estimate the curvature, the gradient
    and the line search always use all.
    """

    algorithm: Literal["trpo"] = "trpo"
    max_kl: Positive = 0.01
    cg_iterations: PositiveInt = 10
    damping: Bounded = 1e-5
    backtrack_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    max_backtracks: PositiveInt = 15
    curvature_fraction: Fraction = 0.1

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """As `metarl.optim.first_order.Optimizer` has it; there is no state.

        Raises:
            FloatingPointError: if the gradient is not finite.
        """
        gradient, value = objective.gradient(theta)
        step = trust_region_step(
            flatten(theta),
            gradient,
            objective.curvature(theta, self.curvature_fraction),
            lambda candidate: objective.evaluate(unflatten(candidate, theta)),
            value,
            self.model_copy(update={"max_kl": self.annealed(self.max_kl, iteration)}),
        )
        metrics = {
            "outer/objective": step.objective,
            "outer/improvement": step.improvement,
            "outer/kl": step.kl,
            "outer/line_search_steps": float(step.candidates),
            "outer/accepted": float(step.accepted),
        }
        return unflatten(step.theta, theta) if step.accepted else theta, {}, metrics


@dataclass(frozen=True)
class TrustRegionStep:
    """What a step did.

    Attributes:
        theta: the parameters after it (P,); the very same tensor where it was rejected.
        accepted: whether a candidate improved the objective within the trust region.
        candidates: how many the line search tried.
        objective: at `theta`.
        improvement: of the objective, 0 where rejected.
        kl: mean divergence at `theta`, 0 where rejected.
    """

    theta: Tensor
    accepted: bool
    candidates: int
    objective: float
    improvement: float
    kl: float


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """Solve A x = target for a positive definite A that is known by its products.

    Args:
        product: v (P,) to A v (P,).
        target: (P,).
        iterations: at most this many.
        tolerance: stop once the squared residual is below this.

    Returns:
        x (P,), and A x (P,), which is known without another product.
    """
    solution = target.new_zeros(target.shape)
    residual = target.clone()
    direction = target.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if squared < tolerance:
            break
        image = product(direction)
        step = squared / (direction @ image)
        solution += step * direction
        residual -= step * image
        previous, squared = squared, residual @ residual
        direction = residual + (squared / previous) * direction
    return solution, target - residual


def trust_region_step(
    theta: Tensor,
    gradient: Tensor,
    curvature: Callable[[Tensor], Tensor],
    evaluate: Callable[[Tensor], tuple[float, float]],
    objective: float,
    settings: TrustRegion,
) -> TrustRegionStep:
    """Maximise the objective along the natural gradient, as far as the divergence allows.

    Args:
        theta: parameters (P,).
        gradient: of the objective, at theta (P,).
        curvature: v (P,) to H v (P,), H the Hessian of the mean divergence at theta.
        evaluate: a candidate (P,) to its objective and its mean divergence.
        objective: at theta.
        settings: see `TrustRegion`.

    Raises:
        FloatingPointError: if the gradient is not finite.
    """
    check_gradient(gradient)
    rejected = TrustRegionStep(theta, False, 0, objective, 0.0, 0.0)

    def damped(vector: Tensor) -> Tensor:
        return curvature(vector) + settings.damping * vector

    direction, image = conjugate_gradient(damped, gradient, settings.cg_iterations)
    quadratic = float(direction @ image)
    if not math.isfinite(quadratic) or quadratic <= 0.0:
        return rejected  # a zero gradient, or a curvature estimate that is none
    step = math.sqrt(2.0 * settings.max_kl / quadratic) * direction
    for backtrack in range(settings.max_backtracks):
        candidate = theta + settings.backtrack_ratio**backtrack * step
        value, kl = evaluate(candidate)
        # a candidate that is not finite fails both comparisons
        if value > objective and kl <= settings.max_kl:
            return TrustRegionStep(candidate, True, backtrack + 1, value, value - objective, kl)
    return TrustRegionStep(theta, False, settings.max_backtracks, objective, 0.0, 0.0)
