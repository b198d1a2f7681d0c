"""Tasks of a robot that moves in a plane: their distribution, and their part of the reward."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from metarl.envs.world import Floats

Marker = Literal["pace", "arrow", "heading", "goal", "none"]


class TaskReward(Protocol):
    """A distribution of tasks, and the task-dependent part of the reward.

    The method `validate_task` is optional, as that of a task family.
    """

    @property
    def task_size(self) -> int:
        """T."""

    @property
    def marker(self) -> Marker:
        """The marker that shows the task in an image."""

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Sample tasks (num_tasks, T)."""

    def describe(self, task: Floats) -> str:
        """Describe one task (T,) in words."""

    def reward(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        """The task-dependent part of the reward, (num,).

        Args:
            tasks: (num, T).
            velocity: forward velocity (num,), or (num, 2) of a robot that runs in any direction of
                the plane, m/s.
            position: position in the plane (num, 2), m.
        """


@dataclass(frozen=True)
class TargetVelocity:
    """Run at a target velocity v: the reward is `offset` − |v_x − v|, v ~ U[low, high]."""

    low: float
    high: float
    offset: float = 0.0
    task_size = 1
    marker: Marker = "pace"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.uniform(self.low, self.high, (num_tasks, 1))

    def describe(self, task: Floats) -> str:
        return f"run at {task[0]:.2f} m/s"

    def reward(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        # the L1 distance has the same slope near the target as far from it, unlike a square
        return self.offset - np.abs(velocity - tasks[:, 0])


@dataclass(frozen=True)
class TargetDirection:
    """Run forward or backward: the reward is d · v_x, d = ±1 with equal probability."""

    task_size = 1
    marker: Marker = "arrow"

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.choice([-1.0, 1.0], (num_tasks, 1))

    def validate_task(self, task: Floats) -> None:
        if abs(task[0]) != 1.0:
            raise ValueError(f"a direction is -1 or 1, not {task[0]:g}")

    def describe(self, task: Floats) -> str:
        return "run forward" if task[0] > 0 else "run backward"

    def reward(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        return tasks[:, 0] * velocity


@dataclass(frozen=True)
class TargetHeading:
    """Run at an angle φ ~ U[0, 2π): the reward is `weight` · (v_x cos φ + v_y sin φ)."""

    weight: float = 1.0
    task_size = 1
    marker: Marker = "heading"

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.uniform(0.0, 2.0 * np.pi, (num_tasks, 1))

    def describe(self, task: Floats) -> str:
        return f"run at {np.degrees(task[0]):.0f} degrees"

    def reward(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        angle = tasks[:, 0]
        # the projection of the velocity on the unit vector of the heading
        return self.weight * (velocity[:, 0] * np.cos(angle) + velocity[:, 1] * np.sin(angle))


@dataclass(frozen=True)
class RunForward:
    """Run forward as fast as possible, for families whose tasks differ in the dynamics only."""

    task_size = 0
    marker: Marker = "none"

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return np.zeros((num_tasks, 0))

    def describe(self, task: Floats) -> str:
        return "run forward"

    def reward(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        return velocity


@dataclass(frozen=True)
class TargetGoal:
    """Reach a goal g: the reward is `offset` − ‖xy − g‖₁, g uniform in a square at the origin."""

    half_width: float
    offset: float
    task_size = 2
    marker: Marker = "goal"

    def __post_init__(self) -> None:
        if not self.half_width > 0.0:
            raise ValueError(f"half_width must be positive, not {self.half_width}")

    def sample(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.uniform(-self.half_width, self.half_width, (num_tasks, 2))

    def describe(self, task: Floats) -> str:
        return f"reach ({task[0]:+.2f}, {task[1]:+.2f})"

    def reward(self, tasks: Floats, velocity: Floats, position: Floats) -> Floats:
        distance: Floats = np.abs(position - tasks).sum(axis=-1)
        return self.offset - distance
