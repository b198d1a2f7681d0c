"""Wrappers: any gymnasium environment as a vector environment with tasks, and the task observed.

`vectorise` puts single environments side by side through gymnasium's own vector environments, and
gives each a task of its own. `TaskConditioned` appends the task to observations, for an oracle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from metarl.envs.family import FamilyWrapper
from metarl.envs.world import Floats, as_tasks
from metarl.errors import UserError

T = TypeVar("T")


class _KeepsTask(gym.Wrapper[Any, Any, Any, Any]):
    """Hands its task on at every reset, autoresets included; an `exit` becomes an error."""

    task: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if self.task is not None:
            options = {**(options or {}), "task": self.task}
        return _without_exit(partial(self.env.reset, seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return _without_exit(partial(self.env.step, action))


def _without_exit(call: Callable[[], T]) -> T:
    try:
        return call()
    except SystemExit as error:
        raise UserError(
            f"an environment called exit({error.code!r}), which would have ended the training; "
            "have it raise an error, or end the episode by returning terminated"
        ) from error


class _OneTaskEach(VectorWrapper[Any, Any, Any]):
    """Gives each sub-environment its row of `options["task"]`.

    gymnasium passes one and the same options to all of them, so the rows travel as attributes.
    """

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        options = dict(options or {})
        tasks = options.pop("task", None)
        try:
            if tasks is not None:
                tasks = np.atleast_1d(tasks)
                rows = list(as_tasks(tasks, self.num_envs, tasks.shape[-1]))
                self.env.set_attr("task", rows)  # type: ignore[attr-defined] # Sync and Async have it
            return self.env.reset(seed=seed, options=options or None)  # type: ignore[arg-type]
        except (EOFError, ConnectionError) as error:
            raise self._lost() from error

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        try:
            return self.env.step(actions)
        except (EOFError, ConnectionError) as error:
            raise self._lost() from error

    def _lost(self) -> UserError:
        """What to raise once the pipe to a sub-environment's process is closed; ends the others."""
        processes = self.env.processes  # type: ignore[attr-defined] # only these have pipes
        over = wait([process.sentinel for process in processes], timeout=1.0)
        for process in processes:
            if process.sentinel in over:
                process.join(timeout=1.0)  # for how it ended
        ended = {i: p.exitcode for i, p in enumerate(processes) if p.exitcode is not None}
        for process in processes:
            process.terminate()
        self.env.closed = True  # to close them would be to wait for their answers
        return UserError(
            "the processes of some sub-environments died (exit status by sub-environment: "
            f"{ended}); run them in one process (asynchronous=False) to see why, or with fewer "
            "sub-environments if memory ran out"
        )


def vectorise(
    make_env: Callable[[], gym.Env[Any, Any]], num_envs: int, asynchronous: bool = False
) -> VectorEnv[Any, Any, Any]:
    """A vector environment whose sub-environments have tasks of their own.

    Args:
        make_env: makes one environment. All that is asked of it is that
            `reset(options={"task": task})` sets the task, (T,). A sub-environment gets its task at
            every reset. Bound its episodes, by gymnasium's TimeLimit for instance, or the horizon
            will.
        num_envs: how many.
        asynchronous: a process for each; worth it where a step takes milliseconds.

    Returns:
        An environment whose `reset` takes `options={"task": tasks}`, (num_envs, T) or (T,).

    Raises:
        UserError: if an environment calls `exit` or its process dies; so do `reset` and `step`.
    """
    makers = [lambda: _KeepsTask(_without_exit(make_env))] * num_envs
    if not asynchronous:
        return _OneTaskEach(SyncVectorEnv(makers))
    try:
        return _OneTaskEach(AsyncVectorEnv(makers))
    except (EOFError, ConnectionError) as error:
        raise UserError(
            "a sub-environment's process ended before its environment was made, with what it wrote "
            "above; run them in one process (asynchronous=False)"
        ) from error


@dataclass(frozen=True)
class TaskConditioned(FamilyWrapper):
    """A family like another, but every observation (S,) ends with the task: (S + T,)."""

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """A single environment; `reset` must be given a task before it can tell it."""
        return _TaskConditionedEnv(self.family.make(render_mode), self.task_size)

    def make_vec(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """A vector environment; `reset` must be given tasks before it can tell them."""
        return _TaskConditionedVectorEnv(self.family.make_vec(num_envs), self.task_size)


class _TaskConditionedEnv(gym.Wrapper[Any, Any, Any, Any]):
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


class _TaskConditionedVectorEnv(VectorWrapper[Any, Any, Any]):
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
        raise UserError(
            f"observations must be a flat Box to append the task to, not {space}; wrap the "
            "environment in gymnasium.wrappers.FlattenObservation"
        )
    return gym.spaces.Box(-np.inf, np.inf, (space.shape[0] + task_size,), np.float64)


def _given(options: dict[str, Any] | None, before: Floats | None, num: int, size: int) -> Floats:
    if options and options.get("task") is not None:
        return as_tasks(options["task"], num, size).copy()
    if before is None:
        raise ValueError(
            "an environment that tells its task needs it in reset(options={'task': …})"
        )
    return before
