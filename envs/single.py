"""A gymnasium environment over a world of one simulation."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from metarl.envs.world import Floats, Frame, NativeFamily, as_tasks, check_finite

ALL = np.ones(1, dtype=bool)


class TaskEnv(gym.Env[Floats, NDArray[Any]], EzPickle):
    """One environment of a family; its task is set with `reset(options={"task": task})`.

    A task stays until another is given. Where none ever was, every reset draws one from the
    environment's own generator. The time limit is a wrapper's business, as ever in gymnasium.

    Args:
        family: what the environment is of.
        render_mode: None or "rgb_array".
    """

    def __init__(self, family: NativeFamily, render_mode: str | None = None) -> None:
        EzPickle.__init__(self, family, render_mode)
        self.family = family
        self.render_mode = render_mode
        self.world = family.world(1, num_threads=1)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.world.fps}
        self.observation_space: gym.spaces.Box = self.world.observation_space  # type: ignore[assignment]
        self.action_space = self.world.action_space
        self._task_given = False

    @property
    def task(self) -> Floats:
        """The present task (T,)."""
        task: Floats = self.world.tasks[0].copy()
        return task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Start an episode, on the task of `options["task"]` (T,) if there is one."""
        super().reset(seed=seed)
        if options and options.get("task") is not None:
            self.world.tasks[:] = as_tasks(options["task"], 1, self.family.task_size)
            self._task_given = True
        elif not self._task_given:
            self.world.tasks[:] = self.family.sample_tasks(self.np_random, 1)
        self.world.reset(ALL, lambda _: self.np_random)
        return self.world.observe()[0], {}

    def step(self, action: NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Advance by one step."""
        actions = np.asarray(action)[None]
        check_finite(actions)
        rewards, terminated = self.world.step(actions, ALL)
        return self.world.observe()[0], rewards[0], bool(terminated[0]), False, {}

    def render(self) -> Frame | None:
        """A picture (height, width, 3), where render_mode is "rgb_array"."""
        return None if self.render_mode is None else self.world.render(0)

    def close(self) -> None:
        """Release the renderer."""
        self.world.close()
