"""Wrappers for tasks: `vectorise` and `TaskConditioned`.

`vectorise` runs any gymnasium environments in one of gymnasium's vector environments, with one task
per sub-environment. `TaskConditioned` appends the task to observations, for an oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper

from metarl.envs.family import FamilyWrapper
from metarl.envs.observations import AnyEnv, VectorObservations
from metarl.envs.world import Floats, as_mask, as_tasks
from metarl.errors import UserError

T = TypeVar("T")


class _PersistentTask(gym.Wrapper[Any, Any, Any, Any]):
    """Passes its task to every reset, autoresets included; turns `exit` into an error."""

    task: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if self.task is not None:
            options = {**(options or {}), "task": self.task}
        return _catch_exit(partial(self.env.reset, seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return _catch_exit(partial(self.env.step, action))


def _catch_exit(call: Callable[[], T]) -> T:
    try:
        return call()
    except SystemExit as error:
        raise UserError(
            f"an environment called exit({error.code!r}), which would end the training; raise an "
            "error instead, or end the episode by returning terminated"
        ) from error


class _TaskPerEnv(VectorWrapper[Any, Any, Any]):
    """Gives each sub-environment its row of `options["task"]`.

    gymnasium passes the same options to all sub-environments, so the rows are set as attributes.
    """

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        options = dict(options or {})
        tasks = options.pop("task", None)
        try:
            if tasks is not None:
                tasks = np.atleast_1d(tasks)
                # copies: the caller may reuse the array, and an environment may change its task
                rows = [row.copy() for row in as_tasks(tasks, self.num_envs, tasks.shape[-1])]
                self.env.set_attr("task", rows)  # type: ignore[attr-defined] # Sync and Async have it
            return self.env.reset(seed=seed, options=options or None)  # type: ignore[arg-type]
        except (EOFError, ConnectionError) as error:
            raise self._worker_error() from error

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        try:
            return self.env.step(actions)
        except (EOFError, ConnectionError) as error:
            raise self._worker_error() from error

    def _worker_error(self) -> UserError:
        """Terminate all workers after the pipe to one was closed, and return the error to raise."""
        processes = self.env.processes  # type: ignore[attr-defined] # only these have pipes
        ready = wait([process.sentinel for process in processes], timeout=1.0)
        for process in processes:
            if process.sentinel in ready:
                process.join(timeout=1.0)  # sets the exit code
        exit_codes = {i: p.exitcode for i, p in enumerate(processes) if p.exitcode is not None}
        for process in processes:
            process.terminate()
        self.env.closed = True  # `close` would wait for answers of dead workers
        return UserError(
            "the processes of some sub-environments died (exit codes by sub-environment: "
            f"{exit_codes}); run them in one process (asynchronous=False) to see why, or use fewer "
            "if memory ran out"
        )


def vectorise(
    make_env: Callable[[], gym.Env[Any, Any]], num_envs: int, asynchronous: bool = False
) -> VectorEnv[Any, Any, Any]:
    """Make a vector environment with one task per sub-environment.

    Args:
        make_env: a function without arguments that returns an environment. Its
            `reset(options={"task": task})` must set the task, (T,), which is passed to every reset.
            Limit the length of episodes with gymnasium's TimeLimit; otherwise the family's horizon
            truncates them.
        num_envs: the number of sub-environments.
        asynchronous: run each sub-environment in its own process (gymnasium's AsyncVectorEnv),
            which is faster if a step takes milliseconds.

    Returns:
        A vector environment whose `reset` takes `options={"task": tasks}`, (num_envs, T) or (T,).

    Raises:
        UserError: if `make_env` is not a function; also in `reset` and `step`, if an environment
            calls `exit` or its process dies.
    """
    if not callable(make_env):
        raise UserError(
            "make_env is a function that returns an environment, such as lambda: "
            f"gymnasium.make('CartPole-v1'), not {make_env!r}"
        )
    if num_envs < 1:
        raise UserError(f"num_envs must be at least 1, not {num_envs}")
    # gymnasium makes each environment by a call; in processes of their own, after a fork or pickle
    makers = [lambda: _PersistentTask(_catch_exit(make_env))] * num_envs
    if not asynchronous:
        return _TaskPerEnv(SyncVectorEnv(makers))
    try:
        return _TaskPerEnv(AsyncVectorEnv(makers))
    except (EOFError, ConnectionError) as error:
        raise UserError(
            "a sub-environment's process ended before its environment was made; see its output "
            "above, or run them in one process (asynchronous=False)"
        ) from error


@dataclass(frozen=True)
class TaskConditioned(FamilyWrapper):
    """A family whose observations (S,) are followed by the task: (S + T,)."""

    def wrap(self, env: AnyEnv) -> Any:
        return observe_task(env, self.task_size)


def observe_task(env: AnyEnv, task_size: int) -> Any:
    """An environment, single or vector, whose observations (S,) end with the task: (S + T,).

    Its first `reset` needs a task.
    """
    if isinstance(env, gym.Env):
        return _TaskConditionedEnv(env, task_size)
    return _TaskConditionedVectorEnv(env, task_size)


class _TaskConditionedEnv(gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any], task_size: int) -> None:
        super().__init__(env)
        self.observation_space = _append_task(env.observation_space, task_size)
        self._size = task_size
        self._task: Floats | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._task = _current_tasks(options, self._task, 1, self._size)
        observation, info = self.env.reset(seed=seed, options=options)
        return np.concatenate([observation, self._task[0]]), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        assert self._task is not None
        return (np.concatenate([observation, self._task[0]]), *rest)  # type: ignore[return-value]


class _TaskConditionedVectorEnv(VectorObservations):
    def __init__(self, envs: VectorEnv[Any, Any, Any], task_size: int) -> None:
        super().__init__(envs, _append_task(envs.single_observation_space, task_size))
        self._size = task_size
        self._tasks: Floats | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        tasks = _current_tasks(options, self._tasks, self.num_envs, self._size)
        mask = (options or {}).get("reset_mask")
        if mask is not None and self._tasks is not None:
            kept = ~as_mask(mask, self.num_envs)
            if (tasks[kept] != self._tasks[kept]).any():
                raise ValueError(
                    "a sub-environment that is not reset keeps its task: options['task'] must have "
                    "it in its row"
                )
        self._tasks = tasks
        return super().reset(seed=seed, options=options)

    def transform(self, observations: Any, index: int | None = None) -> Floats:
        assert self._tasks is not None
        # the last observation of one sub-environment is transformed alone, with its own task
        tasks = self._tasks if index is None else self._tasks[index]
        return np.concatenate([observations, tasks], axis=-1)


def _append_task(space: gym.Space[Any], task_size: int) -> gym.spaces.Box:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise UserError(
            f"observations must be a flat Box to append the task to, not {space}; wrap the "
            "environment in gymnasium.wrappers.FlattenObservation"
        )
    # tasks may be anything: a goal in metres, a velocity, the number of a class
    return gym.spaces.Box(-np.inf, np.inf, (space.shape[0] + task_size,), np.float64)


def _current_tasks(
    options: dict[str, Any] | None, previous: Floats | None, num: int, size: int
) -> Floats:
    # a copy: the caller may write the next tasks into the same array
    if options and options.get("task") is not None:
        return as_tasks(options["task"], num, size).copy()
    if previous is None:
        raise ValueError(
            "a task-conditioned environment needs a task at its first reset: "
            "reset(options={'task': …})"
        )
    return previous
