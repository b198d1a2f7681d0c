"""`check_family`, which tests whether a task family conforms to the protocol."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.envs.family import (
    TaskFamily,
    check_members,
    check_outcome,
    check_spaces,
    checked_tasks,
)
from metarl.envs.images import flat_family
from metarl.errors import UserError

VectorEnv = gym.vector.VectorEnv[Any, Any, Any]


def check_family(family: TaskFamily, num_envs: int = 4) -> None:
    """Check whether a family conforms to the protocol that training relies on.

    Shapes, types and finiteness are checked with the functions that training uses; determinism and
    partial resets, which training cannot observe, are checked here only.

    Args:
        family: the family.
        num_envs: size of the vector environment; at least 2.

    Raises:
        UserError: describing the first violation.
    """
    check_members(family, type(family).__name__)
    family = flat_family(family)
    tasks = checked_tasks(family, np.random.default_rng(0), num_envs)
    repeated = checked_tasks(family, np.random.default_rng(0), num_envs)
    _expect(
        np.array_equal(tasks, repeated),
        "sample_tasks must use the given generator only: two equal generators gave different tasks",
    )
    _expect(isinstance(family.describe(tasks[0]), str), "describe must return a string")

    env, envs = family.make(), family.make_vec(num_envs)
    try:
        check_spaces(env.observation_space, env.action_space)
        _expect(
            env.observation_space == envs.single_observation_space
            and env.action_space == envs.single_action_space,
            "make and make_vec must have the same spaces",
        )
        _expect(envs.num_envs == num_envs, f"make_vec({num_envs}) made {envs.num_envs}")
        observations, rewards = _episode(envs, tasks, family.horizon)
        repeated_episode = _episode(envs, tasks, family.horizon)
        _expect(
            np.array_equal(observations, repeated_episode[0])
            and np.array_equal(rewards, repeated_episode[1]),
            "two episodes with the same seeds, tasks and actions must be the same",
        )
        other_tasks = checked_tasks(family, np.random.default_rng(1), num_envs)
        _, other_rewards = _episode(envs, other_tasks, family.horizon)
        _expect(
            not np.array_equal(rewards, other_rewards),
            "rewards must depend on the task passed to reset(options={'task': tasks})",
        )
        _check_partial_reset(envs, tasks)
    finally:
        env.close()
        envs.close()


def _episode(envs: VectorEnv, tasks: NDArray[np.float64], horizon: int) -> tuple[Any, Any]:
    """Observations and rewards of one episode, zero after its end."""
    shape = envs.num_envs, envs.single_observation_space.shape[0]  # type: ignore[index] # flat
    rng = np.random.default_rng(0)
    observation, _ = envs.reset(seed=0, options={"task": tasks})
    check_outcome(shape, observation)
    observations, rewards = [observation], []
    alive = np.ones(envs.num_envs, dtype=bool)
    for _ in range(horizon):
        observation, reward, terminated, truncated, _ = _step(envs, rng)
        check_outcome(shape, observation, reward, terminated, truncated)
        rewards.append(np.where(alive, reward, 0.0))
        alive &= ~(terminated | truncated)
        observations.append(np.where(alive[:, None], observation, 0.0))
        if not alive.any():
            break
    _expect(bool(np.isfinite(observations).all()), "observations must be finite")
    _expect(bool(np.isfinite(rewards).all()), "rewards must be finite")
    return np.array(observations), np.array(rewards)


def _step(envs: VectorEnv, rng: np.random.Generator) -> Any:
    """Step with random actions; like a policy's, those of a Box may lie outside its bounds."""
    space: gym.Space[Any] = envs.single_action_space
    if isinstance(space, gym.spaces.Discrete):
        return envs.step(rng.integers(space.n, size=envs.num_envs))
    actions = rng.standard_normal(envs.action_space.shape, dtype=np.float32)
    try:
        return envs.step(actions)
    except (AssertionError, ValueError) as error:
        if envs.action_space.contains(actions.astype(envs.action_space.dtype)):
            raise
        raise UserError(
            f"step must accept any action drawn from a normal distribution, but raised {error!r}; "
            "wrap the environment in gymnasium.wrappers.ClipAction, and before that in "
            "RescaleAction if its bounds are not -1 and 1"
        ) from error


def _check_partial_reset(envs: VectorEnv, tasks: NDArray[np.float64]) -> None:
    envs.reset(seed=0, options={"task": tasks})
    before, *_ = _step(envs, np.random.default_rng(0))
    before = np.array(before)
    reset_mask = np.arange(envs.num_envs) == 0
    after, _ = envs.reset(options={"task": tasks, "reset_mask": reset_mask})
    _expect(
        np.array_equal(before[~reset_mask], after[~reset_mask]),
        "reset(options={'reset_mask': mask}) must not change the sub-environments outside the "
        "mask; metarl.envs.vectorise makes a vector environment that conforms",
    )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
