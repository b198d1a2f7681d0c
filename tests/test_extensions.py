"""Extensions from outside: a method, a bandit and an agent, each written in one file."""

import os
import re
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import metarl
from metarl.envs import vectorise
from metarl.errors import UserError
from metarl.experiment import load_config, validate_config
from metarl.method import TrainingState, load_method, train
from metarl.params import flatten
from metarl.rl.advantages import (
    discounted_returns,
    fit_bootstrapped_baseline,
    generalized_advantages,
    state_features,
    with_advantages,
)
from metarl.rl.sampler import sample
from metarl.rl.trajectories import Trajectories
from metarl.rng import RngKey

sys.path.insert(0, os.path.dirname(__file__))  # as a user's own folder is on the path

import my_methods


class Bandit(gym.Env):
    """Bernoulli arms; the task holds their probabilities, and an episode has H pulls."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options and "task" in options:
            self.task = np.asarray(options["task"])
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward = float(self.np_random.random() < self.task[action])
        return np.zeros(1, np.float32), reward, False, False, {}


class BanditFamily:
    horizon, task_size = 20, 3

    def sample_tasks(self, rng, num_tasks):
        return rng.random((num_tasks, 3))

    def describe(self, task):
        return "pull the arms " + " ".join(f"{p:.2f}" for p in task)

    def make(self, render_mode=None):
        return gym.wrappers.TimeLimit(Bandit(), self.horizon)

    def make_vec(self, num_envs):
        return vectorise(self.make, num_envs)


BANDIT = {
    "family": {"name": BanditFamily},
    "policy": {"hidden_sizes": [8]},
    "inner": {"episodes_per_task": 4, "step_size": 0.3},
    "outer": {"algorithm": "adam", "iterations": 3, "meta_batch": 4},
    "evaluation": {"tasks": 6, "episodes_per_task": 2},
}


@pytest.mark.slow
def test_reptile_for_policies_works_as_a_custom_method(tmp_path: Path) -> None:
    run = metarl.train(
        {
            "family": {"name": "point-navigation"},
            "policy": {"hidden_sizes": [32, 32]},
            "method": my_methods.Reptile,
            "inner": {"step_size": 0.5, "episodes_per_task": 20},
            "outer": {"algorithm": "sgd", "learning_rate": 0.5, "iterations": 30, "meta_batch": 10},
            "evaluation": {"tasks": 20},
        },
        tmp_path / "reptile",
    )
    curve = metarl.load(run).evaluate()
    before, after = curve.scores.mean(axis=0)[:2]
    assert after > before + 1.0
    assert (
        metarl.load(run).adapt(metarl.load(run).method.problem.family.make(), [0.2, 0.2]).steps == 1
    )


def with_outer_step(outer: dict[str, object], method: str = "maml") -> metarl.Config:
    return metarl.Config(
        method=method,
        family={"name": "point-navigation"},
        inner={"episodes_per_task": 2},
        outer={"iterations": 4, "meta_batch": 2, **outer},
        evaluation={"tasks": 2},
        checkpoint_every=1,
    )


@pytest.mark.parametrize("method", ["maml", "promp", "rl2"])
def test_the_outer_step_of_the_documentation_trains_and_resumes_bit_for_bit(
    method: str, tmp_path: Path, monkeypatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
    (code,) = re.findall(r"```python\n(from metarl\.optim.*?)```", page, re.DOTALL)
    (tmp_path / "my_outer_step.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    outer = {"algorithm": "my_outer_step:Lion", "learning_rate": 1e-3, "beta": 0.9}
    learner = load_method(with_outer_step(outer, method))
    first = learner.initial_state()
    states = [state for state, _ in train(learner, first)]
    steps = [
        flatten(after.params) - flatten(before.params)
        for before, after in pairwise([first, *states])
    ]
    assert 0.9e-3 < steps[0].abs().max() < 1.1e-3 * 8  # at most 8 minibatches
    *_, (resumed, _) = train(learner, states[1])
    assert torch.equal(flatten(resumed.params), flatten(states[-1].params))
    assert states[-1].opt_state.keys() == {"mean"}


def test_a_method_may_derive_from_one_of_the_package_with_settings_of_its_own() -> None:
    config = metarl.Config(
        family={"name": "point-navigation"}, method={"name": my_methods.Wider, "beta": 0.2}
    )
    assert (config.method.name, config.method.beta) == ("my_methods:Wider", 0.2)
    assert config.outer.algorithm == "adam"  # TRPO is no outer step of ProMP
    assert validate_config(config.model_dump(mode="json")) == config
    assert isinstance(load_method(config), my_methods.Wider)
    with pytest.raises(UserError, match=r"method\.bata: there is no such setting"):
        metarl.Config(
            family={"name": "point-navigation"}, method={"name": my_methods.Wider, "bata": 0.2}
        )


def test_a_custom_outer_step_with_a_divergence_needs_a_method_with_trpo() -> None:
    outer = {"algorithm": my_methods.SmallStep}
    learner = load_method(with_outer_step(outer))
    *_, (_, metrics) = train(learner, learner.initial_state())
    assert 0.0 < metrics["outer/kl"] < 0.1
    with pytest.raises(UserError, match="must be 'adam' or 'sgd' or 'torch' for method promp"):
        with_outer_step(outer, "promp")


@pytest.mark.slow
def test_thompson_sampling_is_compared_with_other_methods(tmp_path: Path) -> None:
    thompson = metarl.train({**BANDIT, "method": my_methods.Thompson}, tmp_path / "thompson")
    maml = metarl.train(BANDIT, tmp_path / "maml")
    table = str(metarl.compare(thompson, maml))
    assert "Thompson sampling" in table
    assert "MAML" in table
    policy = metarl.load(thompson)
    policy.reset()
    env = BanditFamily().make()
    total = np.mean(
        [metarl.load(thompson, seed=s).play(env, [0.9, 0.1, 0.1])[0].total for s in range(5)]
    )
    assert total > 12.0  # of 20 pulls; equal pulls have 7.3


class Chain(gym.Env):
    """Walk right to the end of a chain of four; the task is the reward there."""

    observation_space = gym.spaces.Box(0.0, 1.0, (4,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.prize = float(options["task"][0]) if options and "task" in options else 1.0
        self.place = 0
        return np.eye(4, dtype=np.float32)[0], {}

    def step(self, action):
        self.place = min(3, self.place + 1) if action else max(0, self.place - 1)
        over = self.place == 3
        return np.eye(4, dtype=np.float32)[self.place], self.prize * over - 0.1, over, False, {}


class ChainFamily(BanditFamily):
    horizon, task_size = 8, 1

    def sample_tasks(self, rng, num_tasks):
        return rng.uniform(1.0, 2.0, (num_tasks, 1))

    def make(self, render_mode=None):
        return gym.wrappers.TimeLimit(Chain(), self.horizon)


@pytest.mark.slow
def test_an_off_policy_method_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = {
        **BANDIT,
        "family": {"name": ChainFamily},
        "method": my_methods.QLearning,
        "outer": {"algorithm": "adam", "iterations": 20, "meta_batch": 5},
    }
    run = metarl.train(config, tmp_path / "whole")
    # an untrained policy walks at random: it seldom arrives within 8 steps
    assert (
        run.metrics()[-1]["return/after_0_steps"] > run.metrics()[0]["return/after_0_steps"] + 0.3
    )

    def stop(state, metrics):
        if state.iteration == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        metarl.train(config, tmp_path / "parts", callbacks=[stop])
    again = metarl.train(config, tmp_path / "parts", resume=True)
    assert again.weights_sha256() == run.weights_sha256()
    assert again.load().extra["actions"].dtype == torch.int64
    shutil.rmtree(tmp_path / "parts")


@pytest.mark.slow
def test_the_sampler_records_terminations_and_next_observations(tmp_path: Path) -> None:
    family = ChainFamily()
    method = metarl.load(metarl.train({**BANDIT, "family": {"name": ChainFamily}}, tmp_path)).method
    params = {n: leaf.expand(1, *leaf.shape) for n, leaf in method.initial_state().params.items()}
    batch = sample(method.policy, params, family.make_vec(50), np.array([[1.0]]), 8, RngKey(0))
    arrived = batch.terminated[0]
    assert arrived.any()
    assert (~arrived).any()
    assert torch.equal(batch.truncated, ~batch.terminated)
    ends = torch.eye(4)[3].expand(int(arrived.sum()), 4)
    assert torch.equal(batch.last_observations[0, arrived], ends)
    next_observations = batch.next_observations
    for b, length in enumerate(batch.lengths[0].tolist()):
        inner = batch.observations[0, b, 1:length]
        assert torch.equal(next_observations[0, b, : length - 1], inner)
        assert torch.equal(next_observations[0, b, length - 1], batch.last_observations[0, b])
        assert not next_observations[0, b, length:].any()


def test_bootstrapping_adds_the_value_after_a_time_limit_and_not_after_a_termination() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(1, 2, 4, generator=generator)
    values = torch.rand(1, 2, 4, generator=generator)
    mask = torch.ones(1, 2, 4, dtype=torch.bool)
    mask[0, 1, 3] = False
    last_values = torch.tensor([[0.7, 0.0]])  # the second one terminated
    advantages = generalized_advantages(rewards * mask, values, mask, 0.9, 1.0, last_values)
    # λ 1: the advantage is the return, with the discounted last value, minus the value
    expected = rewards[0, 0] @ torch.tensor([1, 0.9, 0.81, 0.729]) + 0.9**4 * 0.7 - values[0, 0, 0]
    torch.testing.assert_close(advantages[0, 0, 0], expected)
    plain = discounted_returns(rewards * mask, 0.9) - values
    torch.testing.assert_close(advantages[0, 1, :3], plain[0, 1, :3])


def test_bootstrapping_needs_the_last_observations_and_changes_only_truncated_episodes() -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (1, 6, 5)
    leaves = [torch.randn(*shape, 2, generator=generator) for _ in range(2)]
    rewards = torch.rand(shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.bool)
    arguments = (*leaves, rewards, mask, torch.zeros(shape), {"mean": torch.zeros(*shape, 2)})
    with pytest.raises(ValueError, match="observations after the last steps"):
        with_advantages(Trajectories(*arguments), 0.9, 0.95, bootstrap=True)
    with pytest.raises(ValueError, match=r"last_observations has shape \(1, 5, 2\); .* \(1, 6\)"):
        Trajectories(*arguments, last_observations=torch.zeros(1, 5, 2))
    last = torch.randn(1, 6, 2, generator=generator)
    all_ended = Trajectories(
        *arguments, terminated=torch.ones(1, 6, dtype=torch.bool), last_observations=last
    )
    ended = with_advantages(all_ended, 0.9, 0.95, bootstrap=True)
    elsewhere = replace(all_ended, last_observations=last + 1.0)
    assert torch.equal(
        with_advantages(elsewhere, 0.9, 0.95, bootstrap=True).advantages, ended.advantages
    )
    cut_off = Trajectories(*arguments, last_observations=last)
    bootstrapped = with_advantages(cut_off, 0.9, 0.95, bootstrap=True)
    assert not torch.allclose(bootstrapped.advantages, ended.advantages)


def test_the_bootstrapped_value_of_an_endless_episode_is_that_of_its_state() -> None:
    # each episode stays in a state with a constant reward, and is cut off after 7 of 50 steps or so
    observations = torch.tensor([-1.0, 0.0, 1.0]).repeat(2).view(6, 1, 1).expand(6, 9, 1)
    rewards = torch.tensor([3.0, -1.0, 0.5]).repeat(2).view(6, 1).expand(6, 9)
    mask = torch.arange(9) < torch.tensor([9, 7, 8, 7, 9, 4]).view(6, 1)
    gamma, rewards = 0.95, rewards * mask
    returns = discounted_returns(rewards[None], gamma)[0]
    remaining = (mask.sum(1, keepdim=True) - torch.arange(9)).clamp(min=0)
    features = state_features(observations)
    beyond = (gamma ** remaining.double()).unsqueeze(-1) * features
    coefficients = fit_bootstrapped_baseline(
        features.flatten(0, 1), returns.flatten(), mask.flatten(), beyond.flatten(0, 1)
    )
    expected = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64) / (1.0 - gamma)
    torch.testing.assert_close(features[:3, 0] @ coefficients, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="bootstrap: needs baseline=linear, not time"):
        load_config("point_navigation", ["inner.bootstrap=true", "inner.baseline=time"])


def test_former_names_of_the_training_state_warn() -> None:
    state = TrainingState(1, {"weight": torch.ones(2)}, {"moment": torch.zeros(2)})
    with pytest.warns(DeprecationWarning, match=r"TrainingState.theta is deprecated: use params"):
        assert state.theta is state.params
    with pytest.warns(DeprecationWarning, match=r"optimizer|pending"):
        assert (state.optimizer, state.pending) == (state.opt_state, state.metric_accumulator)
