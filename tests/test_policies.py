"""Policies against torch.distributions, and their Fisher matrix against autograd."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.func import hessian

from metarl.errors import UserError
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy, policy_for

POLICIES = [GaussianPolicy(3, 2, (8,), init_std=0.7), CategoricalPolicy(3, 4, (8,), "tanh")]
both = pytest.mark.parametrize("policy", POLICIES, ids=["gaussian", "categorical"])


def reference(policy, distribution):
    if isinstance(policy, GaussianPolicy):
        mean = distribution["mean"]
        return Independent(Normal(mean, distribution["log_std"].exp().expand_as(mean)), 1)
    return Categorical(logits=distribution["logits"])


def at(policy, seed):
    generator = torch.Generator().manual_seed(seed)
    params = policy.init(generator)
    return policy.distribution(params, torch.randn(6, 3, generator=generator))


@both
def test_log_probabilities_kl_and_entropy_equal_those_of_torch(policy) -> None:
    old, new = at(policy, 0), at(policy, 1)
    actions = reference(policy, old).sample()
    torch.testing.assert_close(
        policy.log_prob(new, actions), reference(policy, new).log_prob(actions)
    )
    torch.testing.assert_close(
        policy.kl(old, new), kl_divergence(reference(policy, old), reference(policy, new))
    )
    torch.testing.assert_close(policy.entropy(new).expand(6), reference(policy, new).entropy())


@both
def test_fisher_is_the_hessian_of_the_divergence_at_equality(policy) -> None:
    distribution = {k: v[:1].double() for k, v in at(policy, 0).items()}
    tangent = {k: torch.randn_like(v) for k, v in distribution.items()}

    def divergence(new):
        if "logits" in new:
            new = {"logits": new["logits"].log_softmax(-1)}
        return policy.kl(distribution, new).sum()

    blocks = hessian(divergence)(distribution)
    for name, leaf in policy.fisher(distribution, tangent).items():
        size = leaf.numel()
        expected = sum(
            blocks[name][other].reshape(size, -1) @ tangent[other].reshape(-1) for other in tangent
        )
        torch.testing.assert_close(leaf.reshape(-1), expected)


@both
def test_actions_follow_the_distribution(policy) -> None:
    distribution = {k: v[:1] for k, v in at(policy, 0).items()}
    noise = torch.from_numpy(policy.noise(np.random.default_rng(0), (40_000,)))
    actions = policy.act({k: v.expand(40_000, -1) for k, v in distribution.items()}, noise)
    expected = reference(policy, distribution)
    if isinstance(policy, GaussianPolicy):
        torch.testing.assert_close(actions.mean(0), expected.mean[0], atol=0.02, rtol=0)
        torch.testing.assert_close(actions.std(0), expected.stddev[0], atol=0.02, rtol=0)
    else:
        frequencies = torch.bincount(actions, minlength=4) / 40_000
        torch.testing.assert_close(frequencies, expected.probs[0], atol=0.02, rtol=0)


@both
def test_parameters_stacked_over_tasks_equal_one_call_per_task(policy) -> None:
    generator = torch.Generator().manual_seed(0)
    initial = [policy.init(generator) for _ in range(3)]
    stacked = {name: torch.stack([p[name] for p in initial]) for name in initial[0]}
    observations = torch.randn(3, 5, 3, generator=generator)
    together = policy.distribution(stacked, observations)
    for task in range(3):
        alone = policy.distribution(
            {n: leaf[task] for n, leaf in stacked.items()}, observations[task]
        )
        for name in alone:
            torch.testing.assert_close(together[name][task], alone[name])


def test_the_standard_deviation_has_a_lower_bound() -> None:
    policy = GaussianPolicy(3, 2, (8,), min_std=0.1)
    params = policy.init(torch.Generator().manual_seed(0))
    params["log_std"] = torch.full((2,), -50.0)
    log_std = policy.distribution(params, torch.zeros(1, 3))["log_std"]
    torch.testing.assert_close(log_std.exp(), torch.full((1, 2), 0.1))


def test_weights_are_xavier_and_biases_zero() -> None:
    params = GaussianPolicy(4, 2).init(torch.Generator().manual_seed(0))
    assert params["weight1"].abs().max() <= (6 / 200) ** 0.5
    assert params["weight1"].std() == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    assert not params["bias0"].any()


def test_a_policy_matches_its_spaces_or_reports_why_not() -> None:
    box, discrete = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
    assert isinstance(policy_for(box, box), GaussianPolicy)
    assert isinstance(policy_for(box, discrete), CategoricalPolicy)
    with pytest.raises(UserError, match="FlattenObservation"):
        policy_for(gym.spaces.Text(4), box)
    with pytest.raises(UserError, match="TransformAction"):
        policy_for(box, gym.spaces.MultiBinary(3))
    with pytest.raises(UserError, match=r"policy.network=cnn: takes images"):
        policy_for(box, box, network="cnn")


def test_the_settings_of_a_network_reach_its_constructor(monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    box = gym.spaces.Box(-1.0, 1.0, (2,))
    policy = policy_for(box, box, network="my_networks:Net", settings={"width": 7})
    params = policy.init(torch.Generator().manual_seed(0))
    assert any(7 in leaf.shape for leaf in params.values())
