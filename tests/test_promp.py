"""ProMP's objective: clipped, penalised, and differentiated exactly."""

import pytest
import torch
from test_meta_gradient import POLICIES, double, finite_differences, problem
from torch.func import vmap

from metarl.params import flatten
from metarl.rl.losses import clipped_surrogate, mean_kl, surrogate
from metarl.rl.promp import ProMPSettings, ProximalObjective
from metarl.rl.trajectories import tasks_of


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]


def nudged(theta, size):
    generator = torch.Generator().manual_seed(1)
    return {
        name: leaf + size * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        for name, leaf in theta.items()
    }


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_equals_finite_differences_away_from_where_it_was_sampled(
    policy, steps
) -> None:
    inner, theta, rollouts = problem(policy, steps)
    objective = ProximalObjective(inner, rollouts, ProMPSettings(clip=0.3, kl_penalty=0.5))
    elsewhere = nudged(theta, 0.03)
    gradient, _ = objective.gradient(elsewhere)
    expected = finite_differences(lambda t: objective.gradient(t)[1], elsewhere)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_the_first_step_is_that_of_the_plain_surrogate(policy) -> None:
    inner, theta, rollouts = problem(policy)
    objective = ProximalObjective(inner, rollouts, ProMPSettings(kl_penalty=0.5))
    # where all ratios are one nothing is clipped, and the divergence has no gradient
    plain, _ = ProximalObjective(inner, rollouts, ProMPSettings(clip=1.0, kl_penalty=0.0)).gradient(
        theta
    )
    torch.testing.assert_close(objective.gradient(theta)[0], plain)


def test_what_is_beyond_the_clip_gains_no_more(policy) -> None:
    _, theta, rollouts = problem(policy)
    one = tasks_of(rollouts.post, slice(0, 1))
    far = {name: leaf.unsqueeze(0) for name, leaf in nudged(theta, 0.5).items()}
    clipped = vmap(lambda p, s: clipped_surrogate(policy, p, s, 0.1))(far, one)
    free = vmap(lambda p, s: surrogate(policy, p, s))(far, one)
    assert float(clipped) < float(free)


def test_the_penalty_is_the_mean_divergence_over_inner_steps(policy) -> None:
    inner, theta, rollouts = problem(policy)
    elsewhere = nudged(theta, 0.05)
    values = [
        ProximalObjective(inner, rollouts, ProMPSettings(kl_penalty=eta)).gradient(elsewhere)[1]
        for eta in (0.0, 1.0)
    ]
    divergence = vmap(lambda s: mean_kl(policy, elsewhere, s))(rollouts.pre[0]).mean()
    assert values[0] - values[1] == pytest.approx(float(divergence))
    assert len(flatten(double(theta))) > 0
