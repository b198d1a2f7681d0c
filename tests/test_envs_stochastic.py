"""A native world with discrete actions and random transitions, of a user."""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
import torch

from metarl.envs import BatchedEnv, TaskEnv, check_family, vectorise
from metarl.envs.vector import NativeTaskFamily
from metarl.rl.policies import policy_for
from metarl.rl.sampler import sample
from metarl.rng import RngKey

SIDE = 5
MOVES = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])


class SlipperyGridWorld:
    """Walk to a cell of a grid; with probability 0.3 the move is a random one."""

    fps = 4
    observation_space = gym.spaces.Box(0.0, SIDE - 1.0, (2,), np.float64)
    action_space = gym.spaces.Discrete(len(MOVES))

    def __init__(self, num):
        self.tasks = np.zeros((num, 2))
        self.cells = np.zeros((num, 2))

    def reset(self, selected, rng):
        for index in np.flatnonzero(selected):
            self.cells[index] = rng(index).integers(SIDE, size=2)

    def step(self, actions, active, rng):
        for index in np.flatnonzero(active):
            slip = rng(index).random() < 0.3
            action = rng(index).integers(len(MOVES)) if slip else actions[index]
            self.cells[index] = np.clip(self.cells[index] + MOVES[action], 0, SIDE - 1)
        distance = np.abs(self.cells - self.tasks).sum(axis=1)
        return -distance, distance == 0.0

    def observe(self):
        return self.cells.copy()

    def render(self, index):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass


@dataclass(frozen=True)
class SlipperyGrid(NativeTaskFamily):
    horizon: int = 8
    task_size = 2

    def sample_tasks(self, rng, num_tasks):
        return rng.integers(SIDE, size=(num_tasks, 2)).astype(np.float64)

    def describe(self, task):
        return f"go to ({task[0]:.0f}, {task[1]:.0f})"

    def world(self, num, num_threads=0):
        return SlipperyGridWorld(num)


def rollout(envs, seed: int, steps: int = 40) -> list[np.ndarray]:
    """Everything that the environments return, on three tasks."""
    tasks = SlipperyGrid().sample_tasks(np.random.default_rng(0), 3)
    results = [envs.reset(seed=seed, options={"task": tasks})[0]]
    envs.action_space.seed(1)
    for _ in range(steps):
        results.extend(envs.step(envs.action_space.sample())[:4])
    return results


def test_a_stochastic_world_with_discrete_actions_is_a_family() -> None:
    check_family(SlipperyGrid())


def test_random_transitions_are_equal_in_a_single_and_a_vector_environment() -> None:
    family = SlipperyGrid()
    native = rollout(BatchedEnv(family, 3), seed=5)
    reference = rollout(vectorise(family.make, 3), seed=5)
    for actual, expected in zip(native, reference, strict=True):
        np.testing.assert_array_equal(actual, expected)
        assert actual.dtype == expected.dtype
    assert sum(ends.sum() for ends in native[3::4]) > 0  # with terminations and autoresets


def test_random_transitions_are_reproducible_and_depend_on_the_seed() -> None:
    envs = BatchedEnv(SlipperyGrid(), 3)
    first, again, other = (rollout(envs, seed) for seed in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    slips = [(a != b).any() for a, b in zip(first[5::4], other[5::4], strict=True)]
    assert np.mean(slips) > 0.5


def test_the_random_transitions_of_a_simulation_do_not_depend_on_other_simulations() -> None:
    tasks = np.array([[4.0, 4.0], [0.0, 0.0], [2.0, 2.0]])
    envs, lone = BatchedEnv(SlipperyGrid(), 3), BatchedEnv(SlipperyGrid(), 1)
    envs.reset(seed=[3, 4, 5], options={"task": tasks})
    lone.reset(seed=[4], options={"task": tasks[1:2]})
    for _ in range(30):
        observations, rewards, *_ = envs.step(np.array([0, 3, 2]))
        observation, reward, *_ = lone.step(np.array([3]))
        assert (observations[1] == observation[0]).all()
        assert rewards[1] == reward[0]


def test_the_sampler_gives_the_same_trajectories_from_native_single_and_divided_envs() -> None:
    family = SlipperyGrid()
    env = TaskEnv(family)
    policy = policy_for(env.observation_space, env.action_space)
    theta = policy.init(torch.Generator().manual_seed(0))
    tasks = family.sample_tasks(np.random.default_rng(0), 4)
    stacked = {name: leaf.expand(4, *leaf.shape) for name, leaf in theta.items()}

    def trajectories(envs, seed=0):
        return sample(policy, stacked, envs, tasks, family.horizon, RngKey(seed))

    native = trajectories(family.make_vec(12))
    for other in (
        trajectories(family.make_vec(12)),
        trajectories(vectorise(family.make, 12)),
        trajectories([family.make_vec(6), family.make_vec(6)]),
    ):
        assert torch.equal(native.observations, other.observations)
        assert torch.equal(native.actions, other.actions)
        assert torch.equal(native.rewards, other.rewards)
        assert torch.equal(native.mask, other.mask)
    assert not torch.equal(native.rewards, trajectories(family.make_vec(12), seed=1).rewards)


@pytest.mark.parametrize("action", [4, -1, 0.0, 1.5, True, np.nan, "1", [1], None], ids=repr)
def test_a_discrete_action_that_does_not_exist_is_refused(action: object) -> None:
    env, envs = TaskEnv(SlipperyGrid()), BatchedEnv(SlipperyGrid(), 2)
    env.reset(seed=0)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    with pytest.raises(ValueError, match="action"):
        envs.step([action, action])
    env.step(3)
    envs.step([3, np.int32(0)])


def test_a_world_whose_step_takes_no_generator_still_works_with_a_warning() -> None:
    class Deterministic(SlipperyGridWorld):
        def step(self, actions, active):
            return super().step(actions, active, lambda _: np.random.default_rng(0))

    class Family(SlipperyGrid):
        def world(self, num, num_threads=0):
            return Deterministic(num)

    for make in (Family().make, lambda: Family().make_vec(2)):
        with pytest.warns(DeprecationWarning, match="Deterministic.step must take a third"):
            env = make()
        env.reset(seed=0)
        env.step(env.action_space.sample())
