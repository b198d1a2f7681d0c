"""The sampler, on an environment that counts."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from metarl.envs import PointNavigation, half_cheetah_direction
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.params import repeat
from metarl.rl.advantages import with_advantages
from metarl.rl.policies import CategoricalPolicy, policy_for
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import sample
from metarl.rng import RngKey, make_rng, make_torch_rng


class Countdown(gym.vector.VectorEnv):
    """The task is the number of steps of an episode; the observation is the step count."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs, change=lambda step, *returned: returned):
        self.num_envs, self.change = num_envs, change

    def reset(self, *, seed=None, options=None):
        self.limits = options["task"][:, 0]
        self.seeds = seed
        self.steps = np.zeros(self.num_envs)
        return self.steps[:, None].copy(), {}

    def step(self, actions):
        self.steps = self.steps + 1
        ended = self.steps >= self.limits
        counts = self.steps[:, None].copy()
        returned = counts, self.steps.copy(), ended, np.zeros_like(ended)
        return *self.change(int(self.steps[0]), *returned), {}


POLICY = CategoricalPolicy(1, 2, (4,))


def countdown(limits, per_task=3, count="episodes", **kwargs):
    params = repeat(POLICY.init(make_torch_rng(0, "init")), len(limits))
    envs = Countdown(len(limits) * per_task, **kwargs)
    tasks = np.array(limits, dtype=float)[:, None]
    return sample(POLICY, params, envs, tasks, 6, RngKey(0), count=count)


def test_episodes_are_masked_after_their_end() -> None:
    batch = countdown([2, 4, 99])
    assert batch.lengths.tolist() == [[2] * 3, [4] * 3, [6] * 3]
    assert batch.returns.tolist() == [[3.0] * 3, [10.0] * 3, [21.0] * 3]
    assert batch.observations[1, 0, :, 0].tolist() == [0, 1, 2, 3, 0, 0]
    assert batch.mean_rewards.tolist() == [1, 2, 3, 4, 5, 6]  # of the episodes that are left
    assert countdown([2, 4]).mean_rewards.isnan().tolist() == [False] * 4 + [True] * 2
    # at the horizon no environment reports an end, and the episode has one all the same
    assert batch.last_observations[:, 0, 0].tolist() == [2, 4, 6]


def test_with_a_number_of_steps_early_ends_allow_more_episodes() -> None:
    batch = countdown([2, 4, 99], count="steps")  # 18 steps: 3 episodes of 6
    assert batch.lengths.tolist() == [[2] * 9, [4] * 5 + [0] * 4, [6] * 3 + [0] * 6]
    assert batch.num_episodes.tolist() == [9, 5, 3]
    assert batch.mean_returns.tolist() == [3.0, 10.0, 21.0]
    first = countdown([2, 4, 99])
    assert batch.actions[:, :3].equal(first.actions)
    new_actions = batch.actions[0, 3:6]
    assert not new_actions.equal(first.actions[0])  # are no copies


def test_a_batch_of_episodes_of_one_step_is_finite() -> None:
    assert countdown([1, 99], count="steps").num_episodes.tolist() == [12, 3]


def test_additional_trajectories_of_other_tasks_do_not_change_a_task() -> None:
    beside = with_advantages(countdown([4, 2], count="steps"), 0.99, 1.0)
    alone = with_advantages(countdown([4], count="steps"), 0.99, 1.0)
    assert beside.weights.shape[1] > alone.weights.shape[1]
    steps_beside, steps_alone = beside.weights[0] > 0, alone.weights[0] > 0
    for name in ("observations", "actions", "advantages", "weights", "log_probs"):
        assert getattr(beside, name)[0][steps_beside].equal(getattr(alone, name)[0][steps_alone])


def test_sampling_stops_when_every_episode_has_ended() -> None:
    assert countdown([2, 3]).mask[:, :, 3:].sum() == 0


def test_the_number_of_environments_must_be_a_multiple_of_the_tasks() -> None:
    params = repeat(POLICY.init(make_torch_rng(0, "init")), 2)
    with pytest.raises(ValueError, match="5 environments cannot be divided evenly among 2"):
        sample(POLICY, params, Countdown(5), np.ones((2, 1)), 3, RngKey(0))


def test_a_flat_array_of_tasks_is_refused() -> None:
    params = repeat(POLICY.init(make_torch_rng(0, "init")), 3)
    with pytest.raises(ValueError, match=r"shape \(N, T\), one row each, not \(3,\)"):
        sample(POLICY, params, Countdown(3), np.ones(3), 3, 0)


def breaks(what, value, index, step):
    """Has sub-environment `index` return `value` at a step: 0 is the observation, 1 the reward."""

    def change(now, *returned):
        if now == step:
            returned[what][index] = value
        return returned

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize(("what", "name"), [(0, "an observation"), (1, "a reward")])
def test_the_error_for_a_value_that_is_not_finite_names_environment_task_and_step(
    what: int, name: str, value: float
) -> None:
    place = rf"sub-environment 4 returned {name} that .* after 2 steps .* on the task \[5.0\]"
    with pytest.raises(FloatingPointError, match=place):
        countdown([3, 5], change=breaks(what, value, index=4, step=2))


def test_an_observation_that_is_not_finite_does_not_reach_the_policy() -> None:
    inputs = []

    class Watchful(CategoricalPolicy):
        def distribution(self, params, observations):
            inputs.append(observations.clone())
            return super().distribution(params, observations)

    policy = Watchful(1, 2, (4,))
    params = repeat(policy.init(make_torch_rng(0, "init")), 1)
    envs = Countdown(2, breaks(0, np.nan, index=1, step=3))
    with pytest.raises(FloatingPointError, match="after 3 steps"):
        sample(policy, params, envs, np.array([[9.0]]), 6, RngKey(0))
    assert len(inputs) == 3
    assert all(torch.isfinite(observations).all() for observations in inputs)


@pytest.mark.parametrize("what", [0, 1])
def test_values_after_the_end_of_an_episode_have_no_effect(what: int) -> None:
    clean = countdown([2, 6])
    batch = countdown([2, 6], change=breaks(what, np.nan, index=0, step=4))
    assert torch.equal(batch.observations, clean.observations)
    assert torch.equal(batch.actions[1], clean.actions[1])
    assert torch.equal(batch.returns, clean.returns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, o, r, e, u: (o[:, 0], r, e, u), r"observations .* not \(6,\)"),
        (lambda _, o, r, e, u: (o[:3], r, e, u), r"observations .* not \(3, 1\)"),
        (lambda _, o, r, e, u: ({"x": o}, r, e, u), "observations .* not dict"),
        (lambda _, o, r, e, u: (o, r[:, None], e, u), r"rewards .* not \(6, 1\)"),
        (lambda _, o, r, e, u: (o, r[:1], e, u), r"rewards .* not \(1,\)"),
        (lambda _, o, r, e, u: (o, 1.0, e, u), "rewards .* not float"),
        (lambda _, o, r, e, u: (o, r, e.astype(int), u), "terminated and truncated"),
        (lambda _, o, r, e, u: (o, r, e, False), "terminated and truncated"),
        (lambda _, o, r, e, u: (o, r, e, u[:1]), "terminated and truncated"),
    ],
)
def test_arrays_that_would_be_broadcast_are_refused(change, message: str) -> None:
    with pytest.raises(UserError, match=message):
        countdown([2, 4], change=change)


def test_the_error_for_trajectories_that_are_not_finite_names_the_place() -> None:
    batch = countdown([3, 5])
    for name in ("observations", "rewards"):
        broken = getattr(batch, name).clone()
        broken[1, 2, 4] = torch.nan
        with pytest.raises(
            FloatingPointError, match=f"the {name[:-1]} at step 4 of trajectory 2 of task 1"
        ):
            replace(batch, **{name: broken})
    large = torch.full_like(batch.rewards, 1e38)
    replace(batch, rewards=large)  # the sum overflows, but all rewards are finite


@pytest.mark.parametrize("family", [PointNavigation(horizon=9), half_cheetah_direction(horizon=9)])
def test_the_samples_of_a_task_do_not_depend_on_other_tasks(family) -> None:
    env = family.make()
    policy = policy_for(env.observation_space, env.action_space)
    theta = policy.init(make_torch_rng(0, "init"))
    tasks = family.sample_tasks(make_rng(0, "tasks"), 3)

    def gather(tasks):
        envs = family.make_vec(2 * len(tasks))
        return sample(policy, repeat(theta, len(tasks)), envs, tasks, 9, RngKey(0, (7,)))

    alone, together = gather(tasks[:1]), gather(tasks)
    torch.testing.assert_close(alone.observations[0], together.observations[0])
    torch.testing.assert_close(alone.actions[0], together.actions[0])
    assert not torch.equal(together.actions[0], together.actions[1])


def test_recorded_log_probabilities_and_distributions_equal_those_of_the_policy() -> None:
    family = PointNavigation(horizon=5)
    env = family.make()
    policy = policy_for(env.observation_space, env.action_space)
    generator = make_torch_rng(0, "init")
    initial = [policy.init(generator) for _ in range(2)]
    params = {name: torch.stack([p[name] for p in initial]) for name in initial[0]}
    tasks = family.sample_tasks(make_rng(0, "tasks"), 2)
    batch = sample(policy, params, family.make_vec(6), tasks, 5, RngKey(0))
    for task in range(2):
        flat = batch.observations[task].flatten(0, 1)
        distribution = policy.distribution({n: leaf[task] for n, leaf in params.items()}, flat)
        log_probs = policy.log_prob(distribution, batch.actions[task].flatten(0, 1))
        torch.testing.assert_close(log_probs, batch.log_probs[task].flatten())
        mean = batch.distribution["mean"][task].flatten(0, 1)
        torch.testing.assert_close(mean, distribution["mean"])
    assert batch.distribution["log_std"].shape == (2, 1, 1, 2)


def test_random_streams_depend_on_seed_role_and_index_and_are_reproducible() -> None:
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 1)]
    draws = [make_rng(*name).random() for name in names]
    assert len(set(draws)) == len(draws)
    assert draws == [make_rng(*name).random() for name in names]


def test_tasks_sampled_in_parts_equal_those_sampled_together(monkeypatch) -> None:
    monkeypatch.setattr("metarl.rl.problem.MIN_PARTED_ENVS", 6)
    settings = ["outer.meta_batch=3", "inner.episodes_per_task=2", "family.settings.horizon=5"]
    problem = PolicyProblem(load_config("half_cheetah_direction", settings))
    policy, tasks = problem.policy, problem.sample_tasks(0)
    params = repeat(policy.init(problem.generator()), 3)
    assert [part.num_envs for part in problem.env_shards] == [4, 2]
    together, apart = (
        sample(policy, params, envs, tasks, 5, RngKey(0))
        for envs in (problem.envs, problem.env_shards)
    )
    for name in ("observations", "actions", "rewards", "mask", "log_probs"):
        assert torch.equal(getattr(apart, name), getattr(together, name)), name
    assert apart.distribution["mean"].shape == together.distribution["mean"].shape
    problem.close()


def test_an_error_in_a_shard_names_the_global_index_of_the_environment() -> None:
    params = repeat(POLICY.init(make_torch_rng(0, "init")), 2)
    parts = [Countdown(3), Countdown(3, change=breaks(1, np.nan, index=1, step=2))]
    with pytest.raises(FloatingPointError, match="sub-environment 4 returned a reward"):
        sample(POLICY, params, parts, np.array([[9.0], [9.0]]), 6, RngKey(0))


def test_an_environment_that_changes_actions_or_returns_its_own_array_changes_no_record() -> None:
    plain = countdown([3, 5])

    class Careless(Countdown):
        def step(self, actions):
            actions[...] = 0
            return super().step(actions)

    params = repeat(POLICY.init(make_torch_rng(0, "init")), 2)
    tasks = np.array([[3.0], [5.0]])
    careless = sample(POLICY, params, Careless(6), tasks, 6, RngKey(0))
    assert plain.actions.any()
    assert torch.equal(careless.actions, plain.actions)
    assert torch.equal(careless.log_probs, plain.log_probs)


def test_trajectories_do_not_write_into_tensors_that_they_share() -> None:
    trajectories = countdown([5, 5])
    rewards = trajectories.rewards.clone()
    shorter = replace(trajectories, mask=trajectories.mask & (torch.arange(6) < 2))
    assert not shorter.rewards[..., 2:].any()
    assert torch.equal(trajectories.rewards, rewards)
