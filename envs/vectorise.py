"""Any gymnasium environment with tasks, through gymnasium's own vector environments."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper

from metarl.envs.world import as_tasks


class _KeepsTask(gym.Wrapper[Any, Any, Any, Any]):
    """Hands its task on at every reset, autoresets included."""

    task: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if self.task is not None:
            options = {**(options or {}), "task": self.task}
        return self.env.reset(seed=seed, options=options)


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
        if options and options.get("task") is not None:
            options = dict(options)
            tasks = np.asarray(options.pop("task"))
            rows = list(as_tasks(tasks, self.num_envs, tasks.shape[-1]))
            self.env.set_attr("task", rows)  # type: ignore[attr-defined] # Sync and Async have it
        return self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]


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
    """
    makers = [lambda: _KeepsTask(make_env())] * num_envs
    envs = AsyncVectorEnv(makers) if asynchronous else SyncVectorEnv(makers)
    return _OneTaskEach(envs)
