"""What a task family is, the families of this package, and how a config names one."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.errors import did_you_mean
from metarl.registry import Registry


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
        """A vector environment whose `reset` takes `options={"task": tasks}`, (num_envs, T)."""


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
        UserError: if there is no such family, or what is named is no class with a family's methods.
        ValueError: if there is no such setting, or the family refuses it.
    """
    settings = dict(settings or {})
    factory = FAMILIES.load(name, METHODS)
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:
        raise ValueError(f"task family {name!r} is not a Python class: {error}") from error
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for setting in settings:
        if setting not in parameters and not takes_any:
            raise ValueError(
                f"task family {name!r} has no setting {setting!r}"
                f"{did_you_mean(setting, parameters)}; it has {', '.join(parameters) or 'none'}"
            )
    try:
        family = factory(**settings)
    except TypeError as error:
        raise ValueError(f"task family {name!r} does not accept its settings: {error}") from error
    if not isinstance(family, TaskFamily):
        members = [m for m in vars(TaskFamily) if not m.startswith("_")]
        lacking = sorted(member for member in members if not hasattr(family, member))
        raise ValueError(f"{name!r} is not a task family: it lacks {', '.join(lacking)}")
    return family
