"""The contract of a task family, as a check that anyone can run on their own."""

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
    """Find out whether a family keeps the contract that training relies on.

    What training looks at, it looks at with the same functions; only what it cannot see, such as
    whether equal seeds give equal episodes, is looked at here alone.

    Args:
        family: the family.
        num_envs: size of the vector environment to try; at least 2.

    Raises:
        UserError: with the first thing that is wrong, in a sentence.
    """
    check_members(family, type(family).__name__)
    family = flat_family(family)
    tasks = checked_tasks(family, np.random.default_rng(0), num_envs)
    again = checked_tasks(family, np.random.default_rng(0), num_envs)
    _expect(
        np.array_equal(tasks, again),
        "sample_tasks must draw from the passed generator alone: two equal ones gave other tasks",
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
        first, rewards = _episode(envs, tasks, family.horizon)
        second, rewards_again = _episode(envs, tasks, family.horizon)
        _expect(
            np.array_equal(first, second) and np.array_equal(rewards, rewards_again),
            "two episodes with the same seeds, tasks and actions must be the same",
        )
        others = checked_tasks(family, np.random.default_rng(1), num_envs)
        _, other_rewards = _episode(envs, others, family.horizon)
        _expect(
            not np.array_equal(rewards, other_rewards),
            "rewards must depend on the task given to reset(options={'task': tasks})",
        )
        _check_reset_of_some(envs, tasks)
    finally:
        env.close()
        envs.close()


def _episode(envs: VectorEnv, tasks: NDArray[np.float64], horizon: int) -> tuple[Any, Any]:
    """Observations, and rewards until each episode's end or the horizon."""
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
    seen, paid = np.array(observations, np.float64), np.array(rewards)
    _expect(bool(np.isfinite(seen).all()), "observations must be finite")
    _expect(bool(np.isfinite(paid).all()), "rewards must be finite")
    return seen, paid


def _step(envs: VectorEnv, rng: np.random.Generator) -> Any:
    """A step with actions as a new policy draws them: those of a Box are not within its bounds."""
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
            f"a step must take any action that a normal distribution draws, but raised {error!r}; "
            "wrap the environment in gymnasium.wrappers.ClipAction, and before that in "
            "RescaleAction if its bounds are not -1 and 1"
        ) from error


def _check_reset_of_some(envs: VectorEnv, tasks: NDArray[np.float64]) -> None:
    envs.reset(seed=0, options={"task": tasks})
    before, *_ = _step(envs, np.random.default_rng(0))
    before = np.array(before)
    some = np.arange(envs.num_envs) == 0
    after, _ = envs.reset(options={"task": tasks, "reset_mask": some})
    _expect(
        np.array_equal(before[~some], after[~some]),
        "reset(options={'reset_mask': some}) must leave alone the sub-environments that are not "
        "among these; metarl.envs.vectorise makes a vector environment that does",
    )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
