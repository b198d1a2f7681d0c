"""E-MAML: its gradient is that of the return after adaptation, sampling included."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import vmap

from metarl.errors import UserError
from metarl.experiment import validate_config
from metarl.method import load_method
from metarl.params import flatten, unflatten
from metarl.rl.analytic_mlp import supports
from metarl.rl.config import InnerConfig
from metarl.rl.e_maml import ExploringObjective, standardised
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy
from metarl.rl.trajectories import Rollouts, Samples

ARMS = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
BANDIT = CategoricalPolicy(1, 3, ())


def arm_policy(logits):
    return {"weight0": torch.zeros(1, 3, dtype=torch.float64), "bias0": logits}


def pull(logits, arms, weights, advantages) -> Samples:
    """Samples (M,) of a bandit's arms, drawn at these logits."""
    observations = torch.zeros(len(arms), 1, dtype=torch.float64)  # its bias alone says anything
    distribution = BANDIT.distribution(arm_policy(logits), observations)
    log_probs = BANDIT.log_prob(distribution, arms)
    return Samples(observations, arms, advantages, weights, log_probs, distribution)


def test_the_gradient_with_credit_is_that_of_the_expected_return_after_adaptation() -> None:
    logits, alpha = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), 0.7
    weight = torch.ones(1, dtype=torch.float64)

    def expected_return(logits):
        """The expected return after one pull and one step on it, by enumeration of all outcomes."""
        total = 0.0
        for arm in range(3):
            step = torch.func.grad(lambda x, arm=arm: x.log_softmax(-1)[arm])(logits)
            after = (logits + alpha * ARMS[arm] * step).softmax(-1)
            total = total + logits.softmax(-1)[arm] * (after @ ARMS)
        return total

    # of one and the same pull the log-likelihood's second derivative is the right one
    inner = InnerLoop(BANDIT, InnerConfig(step_size=alpha, estimator="log_likelihood"))

    def gradient(credit: float):
        total = torch.zeros(3, dtype=torch.float64)
        for arm in range(3):
            pre = pull(logits, torch.tensor([arm]), weight, ARMS[arm : arm + 1])
            adapted = inner.adapt(arm_policy(logits), [pre])["bias0"]
            all_arms = pull(adapted, torch.arange(3), adapted.softmax(-1), ARMS)
            outcome = (adapted.softmax(-1) @ ARMS)[None]
            stacked = [
                Samples(*(leaf[None] for leaf in step[:5]), {"logits": step[5]["logits"][None]})
                for step in (pre, all_arms)
            ]
            rollouts = Rollouts([], stacked, [])
            objective = ExploringObjective(inner, rollouts, outcome, credit)
            slope, _ = objective.gradient(arm_policy(logits))
            total += logits.softmax(-1)[arm] * slope[3:]
        return total

    exact = torch.func.grad(expected_return)(logits)
    torch.testing.assert_close(gradient(1.0), exact, rtol=1e-9, atol=1e-12)
    assert (gradient(1e-9) - exact).norm() > 1e-2  # MAML ignores that θ affects the data


class GaussianSubclass(GaussianPolicy):
    """Differentiated by autograd, because a subclass may use another network."""


def objective_of(policy, steps: int = 1):
    inner = InnerLoop(policy, InnerConfig(step_size=0.3, steps=steps), chunk_samples=32)
    theta = {
        name: leaf.double() for name, leaf in inner.init(torch.Generator().manual_seed(0)).items()
    }

    def sampled(params, seed: int) -> Samples:
        rng = np.random.default_rng(seed)
        observations = torch.from_numpy(rng.normal(size=(3, 16, 2)))
        distribution = policy.distribution(params, observations)
        actions = policy.act(distribution, torch.from_numpy(policy.noise(rng, (3, 16))).double())
        weights = torch.full((3, 16), 1 / 16, dtype=torch.float64)
        advantages = torch.from_numpy(rng.normal(size=(3, 16)))
        log_probs = policy.log_prob(distribution, actions)
        return Samples(observations, actions, advantages, weights, log_probs, distribution)

    params = {name: leaf.expand(3, *leaf.shape) for name, leaf in theta.items()}
    pre = []
    for step in range(steps):
        pre.append(sampled(params, step))
        shorter = replace(inner, settings=inner.settings.model_copy(update={"steps": step + 1}))
        params = vmap(shorter.adapt, in_dims=(None, 0))(theta, pre)
    rollouts = Rollouts([], [*pre, sampled(params, 9)], [])
    outcome = torch.tensor([1.2, -0.4, -0.8], dtype=torch.float64)
    return theta, ExploringObjective(inner, rollouts, outcome, 0.6)


POLICIES = [GaussianPolicy(2, 2, (5,), "tanh"), GaussianSubclass(2, 2, (5,), "tanh")]


@pytest.mark.parametrize("policy", POLICIES, ids=["analytic", "autograd"])
@pytest.mark.parametrize("steps", [1, 2])
def test_gradient_and_value_match_those_of_line_search_candidates(policy, steps) -> None:
    theta, objective = objective_of(policy, steps)
    gradient, value = objective.gradient(theta)
    assert value == pytest.approx(objective.value_and_kl(theta)[0])
    direction = torch.randn(
        gradient.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    ahead, behind = (
        objective.value_and_kl(unflatten(flatten(theta) + size * direction, theta))[0]
        for size in (1e-5, -1e-5)
    )
    assert float(gradient @ direction) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_analytic_and_autograd_results_are_equal() -> None:
    (theta, analytic), (_, autograd) = (objective_of(policy, 2) for policy in POLICIES)
    assert [supports(policy) for policy in POLICIES] == [True, False]
    torch.testing.assert_close(analytic.gradient(theta), autograd.gradient(theta))
    torch.testing.assert_close(analytic.value_and_kl(theta), autograd.value_and_kl(theta))


def test_the_credit_is_the_score_of_the_actions_times_their_outcome() -> None:
    theta, objective = objective_of(POLICIES[0])
    plain = MetaObjective(objective.inner, objective.rollouts)
    (pre,), policy = objective.rollouts.pre, objective.inner.policy
    expected = torch.zeros_like(flatten(theta))
    for task, outcome in enumerate(objective.outcome):

        def mean_log_prob(params, task=task):
            distribution = policy.distribution(params, pre.observations[task])
            return policy.log_prob(distribution, pre.actions[task]).mean()

        expected += 0.6 * outcome * flatten(torch.func.grad(mean_log_prob)(theta)) / 3
    difference = objective.gradient(theta)[0] - plain.gradient(theta)[0]
    torch.testing.assert_close(difference, expected)


def test_outcomes_are_standardised() -> None:
    outcome = standardised(torch.tensor([3.0, 5.0, 10.0]))
    assert float(outcome.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(outcome.std(correction=0)) == pytest.approx(1.0)
    assert not standardised(torch.tensor([2.0])).any()  # a single task did as well as expected


def test_a_credit_of_zero_is_refused() -> None:
    values = {"family": {"name": "point-navigation"}, "method": {"name": "e_maml", "credit": 0.0}}
    with pytest.raises(UserError, match=r"method\.credit: must be greater than 0"):
        load_method(validate_config(values))


def test_one_task_has_no_other_to_compare_its_outcome_with() -> None:
    values = {"family": {"name": "point-navigation"}, "method": "e_maml"}
    with pytest.raises(UserError, match=r"outer.meta_batch: E-MAML .* set at least 2"):
        load_method(validate_config({**values, "outer": {"meta_batch": 1}}))
