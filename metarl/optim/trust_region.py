"""Trust region policy optimisation (Schulman et al. 2015) on a parameter vector.

It needs the objective's gradient, products with the curvature of the KL divergence, and the value
and the divergence at candidates; see `metarl.optim.TrustRegionObjective`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from metarl.config.sections import (
    Fraction,
    NonNegativeFloat,
    OuterSection,
    PositiveFloat,
    PositiveInt,
)
from metarl.optim.objective import TrustRegionObjective, check_gradient
from metarl.params import Params, flatten, unflatten


class TrustRegion(OuterSection):
    """Trust region steps; the defaults are those of Finn et al. (2017).

    `max_kl` is δ, the largest mean KL divergence of an accepted step. The direction solves A x = g
    by `cg_iterations` of conjugate gradients; `damping` is added to the diagonal of the curvature
    A. `curvature_fraction` of the samples estimate A: every k-th time step, with 1/k closest to it;
    the gradient and the line search use all samples. The step is multiplied by `backtrack_ratio`,
    at most `max_backtracks` times, until the objective improves within δ.
    """

    algorithm: Literal["trpo"] = "trpo"
    max_kl: PositiveFloat = 0.01
    cg_iterations: PositiveInt = 10
    damping: NonNegativeFloat = 1e-5
    backtrack_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    max_backtracks: PositiveInt = 15
    curvature_fraction: Fraction = 0.1

    def step(
        self, theta: Params, objective: TrustRegionObjective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """See `metarl.optim`; there is no state.

        Raises:
            FloatingPointError: if the gradient is not finite.
        """
        gradient, value = objective.gradient(theta)
        step = trust_region_step(
            flatten(theta),
            gradient,
            objective.curvature(theta, self.curvature_fraction),
            lambda candidate: objective.value_and_kl(unflatten(candidate, theta)),
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
    """Result of a step.

    Attributes:
        theta: the new parameters (P,); the identical tensor if the step was rejected.
        accepted: whether a candidate improved the objective within the trust region.
        candidates: number of candidates that the line search evaluated.
        objective: value at `theta`.
        improvement: increase of the objective, 0 if rejected.
        kl: mean divergence at `theta`, 0 if rejected.
    """

    theta: Tensor
    accepted: bool
    candidates: int
    objective: float
    improvement: float
    kl: float


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], target: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve A x = target for a positive definite A (Hestenes and Stiefel 1952).

    Args:
        matvec: v (P,) to A v (P,).
        target: (P,).
        iterations: maximum number of iterations, each with one product.

    Returns:
        x (P,) and A x (P,); the latter costs no additional product.
    """
    solution = target.new_zeros(target.shape)
    residual = target.clone()  # r = target − A x, with x = 0
    direction = target.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if squared < 1e-10:
            break
        image = matvec(direction)
        step = squared / (direction @ image)  # minimises ½ xᵀA x − targetᵀx along the direction
        solution += step * direction
        residual -= step * image
        previous, squared = squared, residual @ residual
        # this makes the directions conjugate: dᵢᵀ A dⱼ = 0 for i ≠ j
        direction = residual + (squared / previous) * direction
    return solution, target - residual


def trust_region_step(
    theta: Tensor,
    gradient: Tensor,
    curvature: Callable[[Tensor], Tensor],
    value_and_kl: Callable[[Tensor], tuple[float, float]],
    objective: float,
    settings: TrustRegion,
) -> TrustRegionStep:
    """Maximise the objective subject to a mean KL divergence of at most δ (`max_kl`).

    Args:
        theta: parameters (P,).
        gradient: g, the gradient of the objective at theta (P,).
        curvature: v (P,) to H v (P,), H the Hessian of the mean KL divergence at theta.
        value_and_kl: a candidate (P,) to its objective and its mean KL divergence.
        objective: value at theta.
        settings: see `TrustRegion`.

    Raises:
        FloatingPointError: if the gradient is not finite.
    """
    check_gradient(gradient, objective, "outer.max_kl")
    rejected = TrustRegionStep(theta, False, 0, objective, 0.0, 0.0)

    def damped(vector: Tensor) -> Tensor:
        return curvature(vector) + settings.damping * vector

    # natural gradient s = H⁻¹ g: the direction of steepest ascent per unit of KL divergence
    direction, image = conjugate_gradient(damped, gradient, settings.cg_iterations)
    quadratic = float(direction @ image)  # sᵀ H s
    if not math.isfinite(quadratic) or quadratic <= 0.0:
        return rejected  # a zero gradient, or an estimate of H that is not positive definite
    # KL(θ, θ + β s) ≈ ½ β² sᵀ H s = δ at the boundary, hence β = √(2 δ / sᵀ H s)
    step = math.sqrt(2.0 * settings.max_kl / quadratic) * direction
    # the quadratic model is only local: shrink the step until the exact values agree with it
    for backtrack in range(settings.max_backtracks):
        candidate = theta + settings.backtrack_ratio**backtrack * step
        value, kl = value_and_kl(candidate)
        # NaN fails both comparisons
        if value > objective and kl <= settings.max_kl:
            return TrustRegionStep(candidate, True, backtrack + 1, value, value - objective, kl)
    return TrustRegionStep(theta, False, settings.max_backtracks, objective, 0.0, 0.0)
