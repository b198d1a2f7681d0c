"""Environments that tell their task: what an oracle sees."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from metarl.envs.family import TaskFamily
from metarl.envs.world import Floats, as_tasks


@dataclass(frozen=True)
class Informed:
    """A family like another, but every observation (S,) ends with the task: (S + T,).

    Attributes:
        family: the other.
    """

    family: TaskFamily

    @property
    def horizon(self) -> int:
        """H."""
        return self.family.horizon

    @property
    def task_size(self) -> int:
        """T."""
        return self.family.task_size

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Tasks (num_tasks, T)."""
        return self.family.sample_tasks(rng, num_tasks)

    def describe(self, task: Floats) -> str:
        """One task in words."""
        return self.family.describe(task)

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """A single environment; `reset` must be given a task before it can tell it."""
        return _InformedEnv(self.family.make(render_mode), self.task_size)

    def make_vec(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """A vector environment; `reset` must be given tasks before it can tell them."""
        return _InformedVectorEnv(self.family.make_vec(num_envs), self.task_size)


class _InformedEnv(gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any], task_size: int) -> None:
        super().__init__(env)
        self.observation_space = _with_task(env.observation_space, task_size)
        self._size = task_size
        self._task: Floats | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._task = _given(options, self._task, 1, self._size)
        observation, info = self.env.reset(seed=seed, options=options)
        return np.concatenate([observation, self._task[0]]), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        assert self._task is not None
        return (np.concatenate([observation, self._task[0]]), *rest)  # type: ignore[return-value]


class _InformedVectorEnv(VectorWrapper[Any, Any, Any]):
    def __init__(self, envs: VectorEnv[Any, Any, Any], task_size: int) -> None:
        super().__init__(envs)
        self.single_observation_space = _with_task(envs.single_observation_space, task_size)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        self._size = task_size
        self._tasks: Floats | None = None

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        self._tasks = _given(options, self._tasks, self.num_envs, self._size)
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return np.concatenate([observations, self._tasks], axis=1), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, *rest = self.env.step(actions)
        assert self._tasks is not None
        return (np.concatenate([observations, self._tasks], axis=1), *rest)


def _with_task(space: gym.Space[Any], task_size: int) -> gym.spaces.Box:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"observations must be a flat Box to append the task to, not {space}")
    return gym.spaces.Box(-np.inf, np.inf, (space.shape[0] + task_size,), np.float64)


def _given(options: dict[str, Any] | None, before: Floats | None, num: int, size: int) -> Floats:
    if options and options.get("task") is not None:
        return as_tasks(options["task"], num, size).copy()
    if before is None:
        raise ValueError(
            "an environment that tells its task needs it in reset(options={'task': …})"
        )
    return before
