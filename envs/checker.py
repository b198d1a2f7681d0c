"""The contract of a task family, as a check that anyone can run on their own."""

from typing import Any

import numpy as np

from metarl.envs.family import TaskFamily


def check_family(family: TaskFamily, num_envs: int = 4) -> None:
    """Find out whether a family keeps the contract that training relies on.

    Args:
        family: the family.
        num_envs: size of the vector environment to try.

    Raises:
        ValueError: with the first thing that is wrong, in a sentence.
    """
    tasks = family.sample_tasks(np.random.default_rng(0), num_envs)
    again = family.sample_tasks(np.random.default_rng(0), num_envs)
    _expect(
        np.shape(tasks) == (num_envs, family.task_size),
        f"sample_tasks must return shape (num_tasks, task_size) = ({num_envs}, "
        f"{family.task_size}), not {np.shape(tasks)}",
    )
    _expect(
        np.array_equal(tasks, again),
        "sample_tasks must draw from the passed generator alone: two equal ones gave other tasks",
    )
    _expect(isinstance(family.describe(tasks[0]), str), "describe must return a string")

    env, envs = family.make(), family.make_vec(num_envs)
    try:
        _expect(
            env.observation_space == envs.single_observation_space
            and env.action_space == envs.single_action_space,
            "make and make_vec must have the same spaces",
        )
        _expect(envs.num_envs == num_envs, f"make_vec({num_envs}) made {envs.num_envs}")
        first, rewards, ended = _episode(envs, tasks, family.horizon)
        second, rewards_again, _ = _episode(envs, tasks, family.horizon)
        _expect(
            np.array_equal(first, second) and np.array_equal(rewards, rewards_again),
            "two episodes with the same seeds, tasks and actions must be the same",
        )
        _expect(
            bool(ended.all()),
            f"every episode must end within the horizon of {family.horizon} steps",
        )
        others = family.sample_tasks(np.random.default_rng(1), num_envs)
        _, other_rewards, _ = _episode(envs, others, family.horizon)
        _expect(
            not np.array_equal(rewards, other_rewards),
            "rewards must depend on the task given to reset(options={'task': tasks})",
        )
    finally:
        env.close()
        envs.close()


def _episode(envs: Any, tasks: Any, horizon: int) -> tuple[Any, Any, Any]:
    """Observations, rewards until each episode's end, and which episodes ended."""
    observation, _ = envs.reset(seed=0, options={"task": tasks})
    _expect(
        np.shape(observation) == envs.observation_space.shape,
        f"reset must return observations of shape {envs.observation_space.shape}, not "
        f"{np.shape(observation)}",
    )
    envs.action_space.seed(0)
    observations, rewards = [observation], []
    alive = np.ones(envs.num_envs, dtype=bool)
    for _ in range(horizon):
        observation, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        rewards.append(np.where(alive, reward, 0.0))
        alive &= ~(terminated | truncated)
        observations.append(observation * alive[:, None])
        if not alive.any():
            break
    return np.array(observations), np.array(rewards), ~alive


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
