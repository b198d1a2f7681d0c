"""What a task family is, the families of this package, and how a config names one."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.envs.ant import ant_direction, ant_goal, ant_velocity
from metarl.envs.half_cheetah import half_cheetah_direction, half_cheetah_velocity
from metarl.envs.point_navigation import PointNavigation
from metarl.errors import did_you_mean


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution of tasks, and environments to solve them in.

    Write a class with these members to meta-train on tasks of your own; it need not derive from
    anything. `metarl.envs.check_family` tells whether it keeps the contract, and
    `metarl.envs.vectorise` makes a vector environment of any gymnasium environment.
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


FAMILIES: dict[str, Callable[..., TaskFamily]] = {
    "point-navigation": PointNavigation,
    "half-cheetah-velocity": half_cheetah_velocity,
    "half-cheetah-direction": half_cheetah_direction,
    "ant-velocity": ant_velocity,
    "ant-direction": ant_direction,
    "ant-goal": ant_goal,
}


def load_family(name: str, settings: Mapping[str, Any] | None = None) -> TaskFamily:
    """The family of this name, with these settings.

    Args:
        name: a key of `FAMILIES`, or `package.module:Class` of one's own, found on the Python path
            or in the working directory.
        settings: keyword arguments of the family.

    Raises:
        ValueError: if there is no such family or setting, or what is named keeps not the contract.
    """
    settings = dict(settings or {})
    factory = _import_factory(name) if ":" in name else FAMILIES.get(name)
    if factory is None:
        raise ValueError(
            f"there is no task family {name!r}{did_you_mean(name, FAMILIES)}; the families are "
            f"{', '.join(FAMILIES)}, or package.module:Class for one of your own"
        )
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


def _import_factory(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"task family {name!r}: cannot import {module_name!r} ({error}); run from the folder "
            "that holds it, or put that on PYTHONPATH"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ValueError(
            f"task family {name!r}: module {module_name!r} has no class {attribute!r}"
            f"{did_you_mean(attribute, vars(module))}"
        )
    return factory  # type: ignore[no-any-return]
