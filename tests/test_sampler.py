"""The sampler, on an environment that counts."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from metarl.envs import PointNavigation, half_cheetah_direction
from metarl.params import repeat, take
from metarl.randomness import Key, stream, torch_stream
from metarl.rl.policies import CategoricalPolicy, policy_for
from metarl.rl.sampler import sample


class Countdown(gym.vector.VectorEnv):
    """Ends after as many steps as its task says; its observation is the step count."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs, broken=False):
        self.num_envs, self.broken = num_envs, broken

    def reset(self, *, seed=None, options=None):
        self.limits = options["task"][:, 0]
        self.seeds = seed
        self.steps = np.zeros(self.num_envs)
        return self.steps[:, None].copy(), {}

    def step(self, actions):
        self.steps = self.steps + 1
        reward = np.full(self.num_envs, np.nan) if self.broken else self.steps
        ended = self.steps >= self.limits
        return self.steps[:, None].copy(), reward, ended, np.zeros_like(ended), {}


POLICY = CategoricalPolicy(1, 2, (4,))


def countdown(limits, per_task=3, **kwargs):
    params = repeat(POLICY.init(torch_stream(0, "init")), len(limits))
    envs = Countdown(len(limits) * per_task, **kwargs)
    tasks = np.array(limits, dtype=float)[:, None]
    return sample(POLICY, params, envs, tasks, 6, Key(0))


def test_episodes_are_masked_after_their_end() -> None:
    gathered = countdown([2, 4, 99])
    assert gathered.lengths.tolist() == [[2] * 3, [4] * 3, [6] * 3]
    assert gathered.returns.tolist() == [[3.0] * 3, [10.0] * 3, [21.0] * 3]
    assert gathered.observations[1, 0, :, 0].tolist() == [0, 1, 2, 3, 0, 0]


def test_sampling_stops_when_every_episode_has_ended() -> None:
    assert countdown([2, 3]).mask[:, :, 3:].sum() == 0


def test_environments_that_do_not_divide_among_tasks_are_refused() -> None:
    params = repeat(POLICY.init(torch_stream(0, "init")), 2)
    with pytest.raises(ValueError, match="5 environments cannot be divided evenly among 2"):
        sample(POLICY, params, Countdown(5), np.ones((2, 1)), 3, Key(0))


def test_rewards_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        countdown([2, 2], broken=True)


@pytest.mark.parametrize("family", [PointNavigation(horizon=9), half_cheetah_direction(horizon=9)])
def test_a_task_is_sampled_the_same_beside_whatever_other_tasks(family) -> None:
    env = family.make()
    policy = policy_for(env.observation_space, env.action_space)
    theta = policy.init(torch_stream(0, "init"))
    tasks = family.sample_tasks(stream(0, "tasks"), 3)

    def gather(tasks):
        envs = family.make_vec(2 * len(tasks))
        return sample(policy, repeat(theta, len(tasks)), envs, tasks, 9, Key(0, (7,)))

    alone, together = gather(tasks[:1]), gather(tasks)
    torch.testing.assert_close(alone.observations[0], together.observations[0])
    torch.testing.assert_close(alone.actions[0], together.actions[0])
    assert not torch.equal(together.actions[0], together.actions[1])


def test_stored_log_probabilities_and_distributions_are_those_of_the_policy() -> None:
    family = PointNavigation(horizon=5)
    env = family.make()
    policy = policy_for(env.observation_space, env.action_space)
    generator = torch_stream(0, "init")
    each = [policy.init(generator) for _ in range(2)]
    params = {name: torch.stack([p[name] for p in each]) for name in each[0]}
    tasks = family.sample_tasks(stream(0, "tasks"), 2)
    gathered = sample(policy, params, family.make_vec(6), tasks, 5, Key(0))
    for task in range(2):
        flat = gathered.observations[task].flatten(0, 1)
        distribution = policy.distribution(take(params, task), flat)
        log_probs = policy.log_prob(distribution, gathered.actions[task].flatten(0, 1))
        torch.testing.assert_close(log_probs, gathered.log_probs[task].flatten())
        mean = gathered.distribution["mean"][task].flatten(0, 1)
        torch.testing.assert_close(mean, distribution["mean"])
    assert gathered.distribution["log_std"].shape == (2, 1, 1, 2)


def test_streams_differ_by_seed_role_and_index_and_are_the_same_again() -> None:
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 1)]
    draws = [stream(*name).random() for name in names]
    assert len(set(draws)) == len(draws)
    assert draws == [stream(*name).random() for name in names]
