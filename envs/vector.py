"""Gymnasium environments on a world: `TaskEnv` (single) and `BatchedEnv` (vectorised).

Both handle seeds and tasks; `BatchedEnv` also has the time limit and autoreset. `NativeTaskFamily`
gives a family with a world both environments.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle, seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from metarl.envs.family import checked_tasks, validate_task
from metarl.envs.world import (
    Floats,
    Frame,
    Mask,
    NativeFamily,
    SimulationRng,
    World,
    as_actions,
    as_mask,
    as_seeds,
    as_tasks,
)

ALL_ACTIVE = np.ones(1, dtype=bool)
StepFunction = Callable[[NDArray[Any], Mask, SimulationRng], tuple[Floats, Mask]]


def _step_function(world: World) -> StepFunction:
    """`world.step`, adapted if it has the old signature `step(actions, active)`."""
    try:
        inspect.signature(world.step).bind(None, None, None)
    except TypeError:
        message = f"{type(world).__name__}.step must take a third argument, rng; see World.step"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
        return lambda actions, active, _: world.step(actions, active)  # type: ignore[call-arg]
    return world.step


def _step_info(world: World) -> dict[str, Any]:
    """The info of a step: the optional attribute `success` of a world, a new array (num,)."""
    success = getattr(world, "success", None)
    return {} if success is None else {"success": success.copy()}


class TaskEnv(gym.Env[Floats, NDArray[Any]], EzPickle):
    """One environment of a family; its task is set with `reset(options={"task": task})`.

    The task persists across resets. Until a task has been set, every reset samples one with the
    environment's generator. There is no time limit: wrap it in gymnasium's TimeLimit.

    Args:
        family: the native task family.
        render_mode: None or "rgb_array".
    """

    def __init__(self, family: NativeFamily, render_mode: str | None = None) -> None:
        EzPickle.__init__(self, family, render_mode)
        _check_render_mode(render_mode)
        self.family = family
        self.render_mode = render_mode
        self.world = family.world(1, num_threads=1)
        self._step = _step_function(self.world)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.world.fps}
        self.observation_space: gym.spaces.Box = self.world.observation_space  # type: ignore[assignment]
        self.action_space = self.world.action_space
        self._has_task = False

    @property
    def task(self) -> Floats:
        """The current task (T,)."""
        task: Floats = self.world.tasks[0].copy()
        return task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Start an episode. `options["task"]` (T,) sets the task."""
        super().reset(seed=seed)
        if options and options.get("task") is not None:
            tasks = as_tasks(options["task"], 1, self.family.task_size)
            validate_task(self.family, tasks[0])
            self.world.tasks[:] = tasks
            self._has_task = True
        elif not self._has_task:
            self.world.tasks[:] = checked_tasks(self.family, self.np_random, 1)
        self.world.reset(ALL_ACTIVE, self._rng)
        return self.world.observe()[0], {}

    def _rng(self, index: int) -> np.random.Generator:
        return self.np_random

    def step(self, action: NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Advance by one step."""
        # a world of one simulation: the single environment has no dynamics of its own
        actions = as_actions(action, self.action_space)[None]
        rewards, terminated = self._step(actions, ALL_ACTIVE, self._rng)
        info = {name: values[0] for name, values in _step_info(self.world).items()}
        return self.world.observe()[0], rewards[0], bool(terminated[0]), False, info

    def render(self) -> Frame | None:
        """An image (height, width, 3) if render_mode is "rgb_array", else None."""
        return None if self.render_mode is None else self.world.render(0)

    def close(self) -> None:
        """Release the renderer."""
        self.world.close()


class BatchedEnv(gym.vector.VectorEnv[Floats, NDArray[Any], NDArray[Any]], EzPickle):
    """A vector environment of one family, without a Python loop over sub-environments.

    The results equal gymnasium's SyncVectorEnv over the family's single environments bit for bit.

        envs = BatchedEnv(half_cheetah_direction(), num_envs=800)
        observations, _ = envs.reset(seed=0, options={"task": tasks})   # tasks (800, 1) or (1,)
        observations, rewards, terminated, truncated, _ = envs.step(actions)

    Tasks persist across resets. Until tasks have been set, every reset samples one with the
    sub-environment's generator.

    Args:
        family: the native task family.
        num_envs: the number of sub-environments.
        max_episode_steps: the time limit; the family's horizon if None.
        autoreset_mode: "NextStep", gymnasium's default, or "Disabled": a sub-environment whose
            episode has ended is not simulated until it is reset.
        render_mode: None or "rgb_array".
    """

    def __init__(
        self,
        family: NativeFamily,
        num_envs: int,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(self, family, num_envs, max_episode_steps, autoreset_mode, render_mode)
        _check_render_mode(render_mode)
        for name, count in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if count is not None and not (isinstance(count, int | np.integer) and count >= 1):
                raise ValueError(f"{name} must be an integer of at least 1, not {count!r}")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            raise ValueError('autoreset_mode "SameStep" is not supported; use "NextStep"')
        self.family = family
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps or family.horizon
        self.render_mode = render_mode
        self.world = family.world(num_envs)
        self._step = _step_function(self.world)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": self.world.fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeds: list[int | None] = [None] * num_envs
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._next_tasks: Floats | None = None
        self._started = False
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._done = np.zeros(num_envs, dtype=bool)
        self._terminated = np.zeros(num_envs, dtype=bool)

    def _rng(self, index: int) -> np.random.Generator:
        """The generator of a sub-environment, created on first use."""
        rng = self._rngs[index]
        if rng is None:
            rng, self._seeds[index] = seeding.np_random(self._seeds[index])
            self._rngs[index] = rng
        return rng

    @property  # type: ignore[misc] # a tuple, as in gymnasium's SyncVectorEnv
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of all sub-environments."""
        return tuple(self._rng(index) for index in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seed of each sub-environment's generator."""
        for index in range(self.num_envs):
            self._rng(index)
        return tuple(self._seeds)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Floats, dict[str, Any]]:
        """Reset all sub-environments, or those of `options["reset_mask"]`.

        Args:
            seed: an integer, which gives sub-environment i the seed + i, or a sequence.
                Sub-environments that are not reset keep their generators.
            options: `task`, (T,) or (num_envs, T), applies to all episodes that start from now on;
                `reset_mask`, boolean (num_envs,), selects the sub-environments to reset.

        Returns:
            Observations (num_envs, S), and an empty info.

        Raises:
            ValueError: if seeds, tasks or mask are invalid, or the first reset has a mask.
        """
        options = options or {}
        selected = np.ones(self.num_envs, dtype=bool)
        if options.get("reset_mask") is not None:
            selected = as_mask(options["reset_mask"], self.num_envs)
            if not self._started and not selected.all():
                raise ValueError("the first reset must include all environments; omit reset_mask")
        if seed is not None:
            # generators are created on first use: creating them is the main cost of a reset
            for index, new_seed in enumerate(as_seeds(seed, self.num_envs)):
                if new_seed is not None and selected[index]:
                    self._seeds[index], self._rngs[index] = new_seed, None
        if options.get("task") is not None:
            size = self.family.task_size
            tasks = as_tasks(options["task"], self.num_envs, size)
            for task in np.unique(tasks, axis=0):  # usually many sub-environments have one task
                validate_task(self.family, task)
            self._next_tasks = tasks.copy()
        self._started = True
        self._restart(selected)
        return self.world.observe(), {}

    def _restart(self, selected: Mask) -> None:
        if self._next_tasks is not None:
            self.world.tasks[selected] = self._next_tasks[selected]
        else:
            for index in np.flatnonzero(selected):
                rng = self._rng(int(index))
                self.world.tasks[index] = checked_tasks(self.family, rng, 1)[0]
        self.world.reset(selected, self._rng)
        self._steps[selected] = 0
        self._done[selected] = False
        self._terminated[selected] = False

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Advance every sub-environment whose episode has not ended; autoreset the others.

        Raises:
            ValueError: if an action is invalid; see `as_actions`.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not self._started:
            raise gym.error.ResetNeeded("cannot step before the first reset")
        actions = as_actions(actions, self.action_space)
        # An episode that ended at the previous step is not simulated at this one: NEXT_STEP starts
        # the next episode and ignores the action, DISABLED repeats the end flags.
        ended = self._done.copy()
        active = ~ended
        rewards, terminated = self._step(actions, active, self._rng)
        self._steps += active
        truncated = self._steps >= self.max_episode_steps
        if ended.any():
            # what the world computed for a simulation that was not stepped is undefined
            rewards[ended] = 0.0
            if self.autoreset_mode is AutoresetMode.NEXT_STEP:
                self._restart(ended)
                terminated[ended] = False
                truncated[ended] = False
            else:
                terminated[ended] = self._terminated[ended]
        self._terminated = terminated
        self._done = terminated | truncated
        info = _step_info(self.world)
        if info:  # as in gymnasium's vector environments, which sub-environments reported it
            info["_success"] = active
        return self.world.observe(), rewards, terminated.copy(), truncated, info

    def render(self) -> tuple[Frame, ...] | None:
        """An image of every sub-environment if render_mode is "rgb_array", else None."""
        if self.render_mode is None:
            return None
        return tuple(self.world.render(index) for index in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Release the renderer."""
        self.world.close()


class NativeTaskFamily(NativeFamily):
    """A mixin that makes the environments of a family with a `world` method."""

    def check_horizon(self) -> None:
        """Raise ValueError if the horizon is not a positive integer."""
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"horizon must be an integer of at least 1, not {self.horizon!r}")

    def make(self, render_mode: str | None = None) -> gym.Env:
        """A single environment, truncated at the horizon."""
        return TimeLimit(TaskEnv(self, render_mode), self.horizon)

    def make_vec(self, num_envs: int) -> BatchedEnv:
        """A vector environment without autoreset, as the sampler uses it."""
        return BatchedEnv(self, num_envs, autoreset_mode=AutoresetMode.DISABLED)


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(
            f'render_mode must be None or "rgb_array", not {render_mode!r}; gymnasium\'s '
            "HumanRendering shows the images of an environment in a window"
        )
