"""The trust region step, on small problems with a known solution."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from metarl.optim.trust_region import TrustRegion, conjugate_gradient, trust_region_step


def positive_definite(size=12, seed=0):
    root = torch.randn(
        size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return root @ root.T + torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_conjugate_gradient_equals_that_of_scipy(iterations: int) -> None:
    matrix, target = positive_definite(), torch.arange(12, dtype=torch.float64)
    solution, image = conjugate_gradient(lambda v: matrix @ v, target, iterations)
    torch.testing.assert_close(image, matrix @ solution)
    expected, _ = scipy.sparse.linalg.cg(
        matrix.numpy(), target.numpy(), rtol=0, atol=1e-5, maxiter=iterations
    )
    np.testing.assert_allclose(solution.numpy(), expected, atol=1e-6)


def linear_problem(theta):
    matrix, gradient = positive_definite(), torch.linspace(-1, 1, 12, dtype=torch.float64)

    def evaluate(candidate):
        offset = candidate - theta
        return float(gradient @ offset), float(0.5 * offset @ matrix @ offset)

    return matrix, gradient, evaluate


def test_the_step_is_the_natural_gradient_at_the_edge_of_the_region() -> None:
    theta = torch.ones(12, dtype=torch.float64)
    matrix, gradient, evaluate = linear_problem(theta)
    step = trust_region_step(
        theta, gradient, lambda v: matrix @ v, evaluate, 0.0, TrustRegion(cg_iterations=50)
    )
    natural = torch.linalg.solve(matrix, gradient)
    length = torch.sqrt(2 * 0.01 / (gradient @ natural))
    torch.testing.assert_close(step.theta, theta + length * natural, atol=1e-5, rtol=0)
    assert step.accepted
    assert step.candidates == 1
    assert step.kl <= 0.01
    assert step.improvement > 0


def test_the_line_search_backtracks_until_the_divergence_is_in_the_region() -> None:
    theta = torch.ones(12, dtype=torch.float64)
    matrix, gradient, evaluate = linear_problem(theta)
    step = trust_region_step(
        theta, gradient, lambda v: 0.5 * matrix @ v, evaluate, 0.0, TrustRegion(cg_iterations=50)
    )
    assert step.candidates == 3  # 2 · 0.8² · 0.8² < 1 < 2 · 0.8²
    assert step.kl <= 0.01


@pytest.mark.parametrize(
    "values", [(-1.0, 0.0), (1.0, 1.0), (float("nan"), 0.0), (1.0, float("nan"))]
)
def test_a_rejected_step_leaves_theta_bit_for_bit(values) -> None:
    theta = torch.ones(12, dtype=torch.float64)
    matrix, gradient, _ = linear_problem(theta)
    step = trust_region_step(
        theta, gradient, lambda v: matrix @ v, lambda _: values, 0.0, TrustRegion()
    )
    assert not step.accepted
    assert step.theta is theta
    assert step.candidates == 15
    assert (step.improvement, step.kl) == (0.0, 0.0)


def test_a_gradient_that_is_not_finite_stops_training() -> None:
    theta = torch.ones(2)
    with pytest.raises(FloatingPointError, match=r"inner\.step_size.*outer\.max_kl"):
        trust_region_step(
            theta, theta * float("nan"), lambda v: v, lambda _: (1.0, 0.0), 0.0, TrustRegion()
        )
    with pytest.raises(FloatingPointError, match=r"not finite"):
        trust_region_step(
            theta, theta, lambda v: v, lambda _: (1.0, 0.0), float("inf"), TrustRegion()
        )


def test_a_zero_gradient_does_not_change_theta() -> None:
    theta = torch.ones(2)
    step = trust_region_step(
        theta, torch.zeros(2), lambda v: v, lambda _: (1.0, 0.0), 0.0, TrustRegion()
    )
    assert step.theta is theta
