"""The task family protocol, the registry of families, and checks of what families return."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl.config.registry import Registry, make
from metarl.envs.world import NativeFamily
from metarl.errors import UserError


@runtime_checkable
class TaskFamily(Protocol):
    """Interface of task families: a distribution of tasks, and environments that take a task.

    To meta-train on your own tasks, write a class with these members; no base class is needed.
    `metarl.check_family` checks it, and `metarl.vectorise` makes the vector environment from any
    Gymnasium environment. docs/library.md has an example.

    Three members are optional:
        releases_gil: a property; if True, steps release the GIL, as those of MuJoCo do, and
            episodes are sampled on several threads.
        validate_task(task): raises ValueError if there is no such task, (T,).
        sample_test_tasks(rng, num_tasks): samples the held-out tasks of evaluations, if their
            distribution differs from that of `sample_tasks`.
    """

    @property
    def horizon(self) -> int:
        """H, the maximum number of time steps of an episode."""

    @property
    def task_size(self) -> int:
        """T, the number of values that define a task."""

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> NDArray[np.float64]:
        """Sample tasks (num_tasks, T), with random numbers from `rng` only."""

    def describe(self, task: NDArray[np.float64]) -> str:
        """Describe a task (T,) in words, for videos and tables, such as "run at 1.5 m/s"."""

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Make a single environment whose `reset` takes `options={"task": task}`, (T,).

        `render_mode` is "rgb_array" for videos, as in `gymnasium.make`.
        """

    def make_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make a vector environment whose `reset` takes `options={"task": tasks}`, (num_envs, T).

        A further option, `reset_mask`, boolean (num_envs,), selects the sub-environments to reset.
        `metarl.vectorise(self.make, num_envs)` returns such an environment.
        """


F = TypeVar("F", bound=Callable[..., Any])
FAMILIES = Registry("task family", {}, "metarl.envs.register_family")
UNAVAILABLE: list[str] = []  # why modules of this package with families were not imported
REQUIRED_METHODS = ("sample_tasks", "describe", "make", "make_vec")


def register_family(name: str) -> Callable[[F], F]:
    """Register a task family: a class, or a function that returns a family.

        @register_family("poles")
        def poles(horizon: int = 100) -> TaskFamily: ...

    Its parameters are the settings of the family in a config, which names a family outside this
    package by its import string, such as `my_module:poles`.
    """
    return FAMILIES.register(name)


def load_family(name: str, settings: Mapping[str, Any] | None = None) -> TaskFamily:
    """Create a task family by name.

    Args:
        name: a key of `FAMILIES`, or `package.module:Class` on the Python path or in the working
            directory. A function must be decorated with `register_family`.
        settings: keyword arguments of the family.

    Raises:
        UserError: if the family or a setting does not exist, the class lacks a method of a family,
            or its constructor raises an error.
    """
    if name not in FAMILIES and ":" not in name and UNAVAILABLE:
        raise UserError(f"task family {name!r} {UNAVAILABLE[0]}")
    factory = FAMILIES.load(name, REQUIRED_METHODS)
    family: TaskFamily = make(FAMILIES.kind, name, factory, settings or {})
    check_members(family, name)
    return family


def check_members(family: object, name: str) -> None:
    """Check that an object has the members of a task family, and that its sizes are valid.

    Raises:
        UserError: if a member is missing, or `horizon` or `task_size` is not a positive integer.
    """
    if not isinstance(family, TaskFamily):
        members = [m for m in vars(TaskFamily) if not m.startswith("_")]
        missing = sorted(member for member in members if not hasattr(family, member))
        raise UserError(f"{name!r} is not a task family: it lacks {', '.join(missing)}")
    for member in ("horizon", "task_size"):
        size = getattr(family, member)
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise UserError(
                f"{member} of task family {name!r} must be an integer of at least 1, not {size!r}"
            )


def releases_gil(family: TaskFamily) -> bool:
    """Whether the tasks of a family are sampled in chunks on several threads."""
    if hasattr(family, "divides"):
        message = f"{type(family).__name__}.divides is deprecated: rename it to releases_gil"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return bool(family.divides)
    return bool(getattr(family, "releases_gil", False))


def checked_tasks(
    family: TaskFamily | NativeFamily, rng: np.random.Generator, num_tasks: int, test: bool = False
) -> NDArray[np.float64]:
    """Sample tasks and validate them.

    Args:
        family: the family.
        rng: the only source of randomness.
        num_tasks: the number of tasks.
        test: call `sample_test_tasks`, if the family has it.

    Returns:
        A new array (num_tasks, T).

    Raises:
        UserError: if the family returned an array of another shape, or values that are not finite
            real numbers.
    """
    method = (
        "sample_test_tasks" if test and hasattr(family, "sample_test_tasks") else "sample_tasks"
    )
    sampled = getattr(family, method)(rng, num_tasks)
    source = f"{method} of {type(family).__name__}"
    try:
        tasks = np.asarray(sampled)
    except (TypeError, ValueError) as error:  # such as rows of different lengths
        raise UserError(f"{source} must return an array with one row per task: {error}") from error
    if not np.can_cast(tasks.dtype, np.float64, "same_kind"):
        raise UserError(f"{source} must return real numbers, not elements of type {tasks.dtype}")
    if tasks.shape != (num_tasks, family.task_size):
        raise UserError(
            f"{source} must return one row per task, of shape (num_tasks, task_size) = "
            f"({num_tasks}, {family.task_size}), not {tasks.shape}"
        )
    # a copy: a family may return the same array at every call
    tasks = tasks.astype(np.float64)
    if not np.isfinite(tasks).all():
        raise UserError(f"{source} must return finite numbers, not NaN or infinities")
    return tasks


def as_task(task: ArrayLike | None) -> NDArray[np.float64] | None:
    """A task as an array (T,), or None.

    Raises:
        UserError: if it is not a row of finite numbers.
    """
    if task is None:
        return None
    try:
        row = np.atleast_1d(np.asarray(task, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise UserError(f"a task must be a row of numbers, not {task!r}") from error
    if row.ndim != 1 or not np.isfinite(row).all():
        raise UserError(f"a task must be a row of finite numbers, not {task!r}")
    return row


def checked_task(family: TaskFamily, task: ArrayLike) -> NDArray[np.float64]:
    """A task (T,) of a family that a user chose.

    Raises:
        UserError: if it is not a row of T finite numbers, or the family's `validate_task` refuses
            it.
    """
    row = as_task(task)
    assert row is not None
    if row.shape != (family.task_size,):
        example = checked_tasks(family, np.random.default_rng(0), 1)[0].round(2).tolist()
        raise UserError(
            f"a task has shape ({family.task_size},), such as {example}, not {row.shape}: "
            f"{row.tolist()}"
        )
    try:
        validate_task(family, row)
    except ValueError as error:
        raise UserError(f"there is no such task as {row.tolist()}: {error}") from error
    return row


def validate_task(family: TaskFamily | NativeFamily, task: NDArray[np.float64]) -> None:
    """Call the optional method `validate_task` of a family.

    Raises:
        ValueError: if the family's environments cannot have the task.
    """
    validate = getattr(family, "validate_task", None)
    if validate is not None:
        validate(task)


@dataclass(frozen=True)
class FamilyWrapper:
    """Base class of families that wrap the environments of another family."""

    family: TaskFamily

    @property
    def horizon(self) -> int:
        return self.family.horizon

    @property
    def task_size(self) -> int:
        return self.family.task_size

    @property
    def releases_gil(self) -> bool:
        return releases_gil(self.family)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> NDArray[np.float64]:
        return checked_tasks(self.family, rng, num_tasks)

    def sample_test_tasks(self, rng: np.random.Generator, num_tasks: int) -> NDArray[np.float64]:
        return checked_tasks(self.family, rng, num_tasks, test=True)

    def describe(self, task: NDArray[np.float64]) -> str:
        return self.family.describe(task)

    def validate_task(self, task: NDArray[np.float64]) -> None:
        validate_task(self.family, task)

    def wrap(self, env: Any) -> Any:
        """Wrap an environment of the family, single or vector."""
        raise NotImplementedError

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = self.wrap(self.family.make(render_mode))
        return env

    def make_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        envs: gym.vector.VectorEnv[Any, Any, Any] = self.wrap(self.family.make_vec(num_envs))
        return envs


def check_spaces(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Check that a policy supports the spaces of a single environment.

    Args:
        observation_space: must be a one-dimensional Box, as after `flat_space`.
        action_space: must be a one-dimensional Box of floats, or Discrete or a one-dimensional
            MultiDiscrete starting at 0.

    Raises:
        UserError: for other spaces, naming the wrapper that converts them.
    """
    if not isinstance(observation_space, gym.spaces.Box) or len(observation_space.shape) != 1:
        raise UserError(
            "observations must be numbers (a Box, or Dict and Tuple of numbers without images), or "
            f"images with three axes, not {observation_space}; wrap the environment in "
            "gymnasium.wrappers.FlattenObservation"
        )
    if len(action_space.shape or ()) <= 1:
        if isinstance(action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
            # policies number choices from 0; an offset would shift every action silently
            supported = not np.any(action_space.start)
        else:
            is_box = isinstance(action_space, gym.spaces.Box) and len(action_space.shape) == 1
            supported = is_box and np.issubdtype(action_space.dtype, np.floating)
        if supported:
            return
    raise UserError(
        "actions must be a flat Box of floats, or Discrete or a flat MultiDiscrete starting at 0, "
        f"not {action_space}; wrap the environment in gymnasium.wrappers.TransformAction, with "
        "such a space and a function that maps its actions to the environment's"
    )


def check_outcome(
    shape: tuple[int, int], observations: object, rewards: object | None = None, *ends: object
) -> None:
    """Check the shapes of what `reset` or `step` of a vector environment returned.

    Args:
        shape: (num_envs, S).
        observations: must be of this shape.
        rewards: must be of shape (num_envs,); None after a reset.
        ends: terminated and truncated; must be boolean, of shape (num_envs,).

    Raises:
        UserError: if a shape or a type is wrong.
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
    name: str,
    values: NDArray[np.floating[Any]],
    tasks: NDArray[np.float64],
    steps: int | NDArray[np.int64],
    first: int = 0,
) -> None:
    """Check that observations or rewards are finite.

    Args:
        name: the kind of value, such as "an observation".
        values: (num_envs,) or (num_envs, ·).
        tasks: the task of each sub-environment, (num_envs, T).
        steps: the number of steps in each episode so far.
        first: index of the first of these sub-environments, if they are a chunk of a larger batch.

    Raises:
        FloatingPointError: naming the first sub-environment concerned, its task and its step.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # one pass without temporaries: the sum is finite only if all terms are
        if np.isfinite(values.sum()):
            return
    invalid = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    for index in np.flatnonzero(invalid):
        # the task is not known where an environment of the user's chooses it
        task = f" on the task {tasks[index].tolist()}" if tasks.size else ""
        raise FloatingPointError(
            f"sub-environment {first + index} returned {name} that is not finite in single "
            f"precision after {np.broadcast_to(steps, len(values))[index]} steps of its "
            f"episode{task}; terminate the episode if the simulation becomes unstable, or lower "
            "the step size of the training"
        )


def _shape(value: object) -> object:
    """The shape of an array, or the type of another object."""
    return getattr(value, "shape", type(value).__name__)
