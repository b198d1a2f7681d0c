"""What a robot is asked to do: the distribution of tasks, the reward for progress, the words."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from metarl.envs.world import Floats

Marker = Literal["pace", "arrow", "goal"]


class Objective(Protocol):
    """A distribution of tasks for a robot that moves in a plane."""

    @property
    def task_size(self) -> int:
        """T."""

    @property
    def marker(self) -> Marker:
        """How a picture shows the task."""

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Tasks (num_tasks, T)."""

    def describe(self, task: Floats) -> str:
        """One task in words."""

    def progress(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        """The part of the reward that depends on the task.

        Args:
            tasks: (num, T).
            velocity: forward velocity (num,), metres a second.
            position: in the plane (num, 2), metres.

        Returns:
            (num,).
        """


@dataclass(frozen=True)
class TargetVelocity:
    """Run at a velocity: `offset` − |v_x − v|, with v uniform in [low, high]."""

    low: float
    high: float
    offset: float = 0.0
    task_size = 1
    marker: Marker = "pace"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Velocities."""
        return rng.uniform(self.low, self.high, (num_tasks, 1))

    def describe(self, task: Floats) -> str:
        """Such as "run at 1.30 m/s"."""
        return f"run at {task[0]:.2f} m/s"

    def progress(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        """`offset` − |v_x − v|."""
        return self.offset - np.abs(velocity - tasks[:, 0])


@dataclass(frozen=True)
class TargetDirection:
    """Run forward or backward, as fast as possible: d · v_x, with d = ±1 at even odds."""

    task_size = 1
    marker: Marker = "arrow"

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Directions."""
        return rng.choice([-1.0, 1.0], (num_tasks, 1))

    def describe(self, task: Floats) -> str:
        """In words."""
        return "run forward" if task[0] > 0 else "run backward"

    def progress(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        """d · v_x."""
        return tasks[:, 0] * velocity


@dataclass(frozen=True)
class TargetGoal:
    """Reach a goal and stay: `offset` − ‖xy − g‖₁, with g uniform in a square around the start."""

    half_width: float
    offset: float
    task_size = 2
    marker: Marker = "goal"

    def __post_init__(self) -> None:
        if not self.half_width > 0.0:
            raise ValueError(f"half_width must be positive, not {self.half_width}")

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Goals."""
        return rng.uniform(-self.half_width, self.half_width, (num_tasks, 2))

    def describe(self, task: Floats) -> str:
        """The goal in words."""
        return f"reach ({task[0]:+.2f}, {task[1]:+.2f})"

    def progress(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        """`offset` − ‖xy − g‖₁."""
        distance: Floats = np.abs(position - tasks).sum(axis=-1)
        return self.offset - distance
