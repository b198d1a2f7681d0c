"""What a task family is, the families of this package, and how a config names one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.config.registry import Registry, make
from metarl.envs.world import NativeFamily
from metarl.errors import UserError


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution of tasks, and environments to solve them in.

    Write a class with these members to meta-train on tasks of your own; it need not derive from
    anything. `metarl.envs.check_family` tells whether it keeps the contract, and
    `metarl.envs.wrappers` makes a vector environment of any gymnasium environment.
    """

    @property
    def horizon(self) -> int:
        """H, the longest an episode lasts."""

    @property
    def task_size(self) -> int:
        """T, how many numbers make a task."""

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> NDArray[np.float64]:
        """Tasks (num_tasks, T), drawn from the passed generator alone."""

    def describe(self, task: NDArray[np.float64]) -> str:
        """One task (T,) in words."""

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """A single environment whose `reset` takes `options={"task": task}`."""

    def make_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """A vector environment whose `reset` takes `options={"task": tasks}`, (num_envs, T).

        With `reset_mask`, boolean (num_envs,), in the options, it resets those alone.
        """


FAMILIES = Registry(
    "task family",
    {
        "point-navigation": "metarl.envs.point_navigation:PointNavigation",
        "half-cheetah-velocity": "metarl.envs.half_cheetah:half_cheetah_velocity",
        "half-cheetah-direction": "metarl.envs.half_cheetah:half_cheetah_direction",
        "ant-velocity": "metarl.envs.ant:ant_velocity",
        "ant-direction": "metarl.envs.ant:ant_direction",
        "ant-goal": "metarl.envs.ant:ant_goal",
    },
)
METHODS = ("sample_tasks", "describe", "make", "make_vec")  # what a class of one's own must have


def load_family(name: str, settings: Mapping[str, Any] | None = None) -> TaskFamily:
    """The family of this name, with these settings.

    Args:
        name: a key of `FAMILIES`, or `package.module:Class` of one's own, found on the Python path
            or in the working directory.
        settings: keyword arguments of the family.

    Raises:
        UserError: if there is no such family or setting, what is named is no class with a family's
            methods, or it cannot be made with these settings.
    """
    factory = FAMILIES.load(name, METHODS)
    family: TaskFamily = make(FAMILIES.kind, name, factory, settings or {})
    check_members(family, name)
    return family


def check_members(family: object, name: str) -> None:
    """Refuse what lacks a member of a family, or has sizes that are no numbers of at least 1.

    Args:
        family: what should be one.
        name: what the sentence calls it.

    Raises:
        UserError: if it is none.
    """
    if not isinstance(family, TaskFamily):
        members = [m for m in vars(TaskFamily) if not m.startswith("_")]
        lacking = sorted(member for member in members if not hasattr(family, member))
        raise UserError(f"{name!r} is not a task family: it lacks {', '.join(lacking)}")
    for member in ("horizon", "task_size"):
        size = getattr(family, member)
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise UserError(
                f"{member} of task family {name!r} must be a whole number of at least 1, not "
                f"{size!r}"
            )


def checked_tasks(
    family: TaskFamily | NativeFamily, rng: np.random.Generator, num_tasks: int
) -> NDArray[np.float64]:
    """Tasks of a family, a new array (num_tasks, T), once it is sure that they are what they must.

    Args:
        family: whose tasks.
        rng: what they are drawn from.
        num_tasks: how many.

    Raises:
        UserError: if `sample_tasks` returned another shape, or anything but finite numbers.
    """
    sampled = family.sample_tasks(rng, num_tasks)
    whose = f"sample_tasks of {type(family).__name__}"
    try:
        tasks = np.asarray(sampled)
    except (TypeError, ValueError) as error:  # such as rows of different lengths
        raise UserError(f"{whose} must return an array, one row a task: {error}") from error
    if not np.can_cast(tasks.dtype, np.float64, "same_kind"):
        raise UserError(f"{whose} must return real numbers, not elements of type {tasks.dtype}")
    if tasks.shape != (num_tasks, family.task_size):
        raise UserError(
            f"{whose} must return one row for each task, of shape (num_tasks, task_size) = "
            f"({num_tasks}, {family.task_size}), not {tasks.shape}"
        )
    tasks = tasks.astype(np.float64)
    if not np.isfinite(tasks).all():
        raise UserError(f"{whose} must return finite numbers, not NaN or infinities")
    return tasks


@dataclass(frozen=True)
class FamilyWrapper:
    """A family like another; what derives from it says in what its environments differ.

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

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> NDArray[np.float64]:
        """Tasks (num_tasks, T)."""
        return checked_tasks(self.family, rng, num_tasks)

    def describe(self, task: NDArray[np.float64]) -> str:
        """One task in words."""
        return self.family.describe(task)

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """A single environment."""
        raise NotImplementedError

    def make_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """A vector environment."""
        raise NotImplementedError


def check_spaces(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse spaces that no policy is for; the sentence names the wrapper that mends them.

    Args:
        observation_space: of a single environment; a one-dimensional Box.
        action_space: of a single environment; a one-dimensional Box of floats, or Discrete from 0.

    Raises:
        UserError: for other spaces.
    """
    if not isinstance(observation_space, gym.spaces.Box) or len(observation_space.shape) != 1:
        raise UserError(
            f"observations must be a flat Box, or one of images with three axes, not "
            f"{observation_space}; wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
    if isinstance(action_space, gym.spaces.Discrete) and action_space.start == 0:
        return
    if (
        isinstance(action_space, gym.spaces.Box)
        and len(action_space.shape) == 1
        and np.issubdtype(action_space.dtype, np.floating)
    ):
        return
    raise UserError(
        f"actions must be a flat Box of floats or Discrete starting at 0, not {action_space}; wrap "
        "the environment in gymnasium.wrappers.TransformAction, with such a space and a function "
        "from it to the environment's own actions"
    )


def check_outcome(
    shape: tuple[int, int],
    observations: object,
    rewards: object | None = None,
    *ends: object,
) -> None:
    """Refuse what `reset` or `step` of a vector environment returned if it has other shapes.

    Args:
        shape: what observations must have, (num_envs, S).
        observations: what was observed.
        rewards: must be (num_envs,); None after a reset.
        ends: terminated and truncated; must be boolean arrays (num_envs,).

    Raises:
        UserError: if something has another shape, or an end is not boolean.
    """
    if _shape(observations) != shape:
        raise UserError(
            "the vector environment must return observations as an array of shape (num_envs, size) "
            f"= {shape}, not {_shape(observations)}"
        )
    if rewards is not None and _shape(rewards) != shape[:1]:
        raise UserError(
            "the vector environment must return rewards as an array of shape (num_envs,) = "
            f"{shape[:1]}, not {_shape(rewards)}"
        )
    for end in ends:
        if _shape(end) != shape[:1] or getattr(end, "dtype", None) != np.bool_:
            raise UserError(
                "the vector environment must return terminated and truncated as boolean arrays of "
                f"shape (num_envs,) = {shape[:1]}, not {end!r}"
            )


def check_finite(
    what: str,
    values: NDArray[np.floating[Any]],
    tasks: NDArray[np.float64],
    steps: int | NDArray[np.int64],
    first: int = 0,
) -> None:
    """Refuse numbers from environments that are not finite, and say where they come from.

    Args:
        what: what they are, such as "an observation".
        values: (num_envs,) or (num_envs, ·).
        tasks: of each sub-environment, (num_envs, T).
        steps: how many its episode has lasted.
        first: number of the first sub-environment, where others come before these.

    Raises:
        FloatingPointError: naming the sub-environment, the task and the step of the first.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # a sum is finite only if all its terms are, and much faster to look at
        if np.isfinite(values.sum()):
            return
    broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    for index in np.flatnonzero(broken):
        raise FloatingPointError(
            f"sub-environment {first + index} returned {what} that is not finite in single "
            f"precision after {np.broadcast_to(steps, len(values))[index]} steps of its episode on "
            f"the task {tasks[index].tolist()}; have the environment end an episode whose "
            "simulation broke down, or lower the step size of whatever trains the policy"
        )


def _shape(value: object) -> object:
    """An array's shape, or else the type of what is no array."""
    return getattr(value, "shape", type(value).__name__)
