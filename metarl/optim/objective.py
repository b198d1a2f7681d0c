"""The objective that the outer loop maximises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from metarl.params import Params, flatten


class Objective(Protocol):
    """A function of the parameters that an optimiser maximises."""

    def minibatches(self) -> list[Objective]:
        """The objective on disjoint parts of the data; `[self]` if it is not divided."""

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The gradient (P,) and the value at `theta`."""


class TrustRegionObjective(Objective, Protocol):
    """An objective of policies, whose change a KL divergence measures."""

    def value_and_kl(self, theta: Params) -> tuple[float, float]:
        """The value at `theta`, and the mean KL divergence from the data's distributions."""

    def curvature(self, theta: Params, fraction: float) -> Callable[[Tensor], Tensor]:
        """Products v (P,) to H v (P,) with the Hessian H of the mean KL divergence at `theta`.

        `fraction` of the samples estimate it.
        """


def gradient_and_value(value: Callable[[Params], Tensor], theta: Params) -> Tensor:
    """The gradient of a scalar function and, as last element, its value: (P + 1,)."""
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
    result = value(leaves)
    gradient = torch.autograd.grad(result, list(leaves.values()))
    flat = flatten(dict(zip(leaves, gradient, strict=True)))
    return torch.cat([flat, result.detach().view(1)])


def check_gradient(gradient: Tensor, value: float, step_size: str) -> None:
    """Refuse a gradient that would ruin the parameters.

    Args:
        gradient: of the outer objective, (P,).
        value: the objective. It may overflow where its gradient does not.
        step_size: the setting that limits the outer step.

    Raises:
        FloatingPointError: if the gradient or the value is not finite.
    """
    if not (gradient.isfinite().all() and math.isfinite(value)):
        raise FloatingPointError(
            "the meta-gradient is not finite; lower the step size of the inner steps, if there are "
            f"any (inner.step_size), or the outer one ({step_size})"
        )
