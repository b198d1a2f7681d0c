"""Navigation of a point to a goal that is not observed.

`point-navigation` is that of Finn et al. (2017, section 5.3), `semicircle` the one with sparse
rewards of Rakelly et al. (2019) and Zintgraf et al. (2020).
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.envs.drawing import draw_point_world
from metarl.envs.family import register_family
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask, SimulationRng

MAX_SPEED = 0.1
TOLERANCE = 0.01
RADIUS = 0.2  # within which sparse rewards are given


class PointWorld:
    """Points in the plane, each with a goal (2,); see `metarl.envs.world.World`."""

    fps = 20

    def __init__(self, num: int, half_width: float) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.tasks: Floats = np.zeros((num, 2))
        self._positions: Floats = np.zeros((num, 2))
        self._half_width = half_width
        self._trails: dict[int, list[Floats]] = {}

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """Move the selected points to the origin; nothing is random."""
        self._positions[selected] = 0.0
        self._trails = {i: trail for i, trail in self._trails.items() if not selected[i]}

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Move by the clipped action; the reward is −‖s' − g‖₂."""
        # the policy's actions are single precision; positions accumulate in double precision
        velocity = MAX_SPEED * np.clip(actions, -1.0, 1.0).astype(np.float64)
        self._positions += velocity * active[:, None]
        offset = self._positions - self.tasks
        for index, trail in self._trails.items():
            trail.append(self._positions[index].copy())
        rewards: Floats = -np.sqrt(np.square(offset).sum(axis=-1))
        return rewards, np.all(np.abs(offset) < TOLERANCE, axis=-1)

    def observe(self) -> Floats:
        return self._positions.copy()

    def render(self, index: int) -> Frame:
        """An image of the goal and the point, with its path since the episode's first render."""
        trail = self._trails.setdefault(index, [self._positions[index].copy()])
        return draw_point_world(np.array(trail), self.tasks[index], self._half_width)

    def close(self) -> None:
        """Nothing to release."""


@register_family("point-navigation")
@dataclass(frozen=True)
class PointNavigation(NativeTaskFamily):
    """A point starts at the origin; goals are uniform in a square around it.

    The action is a velocity, clipped to [−1, 1] and scaled to ±0.1 on both axes, as in the released
    code. The observation is the position; the reward is −‖s' − g‖₂; an episode terminates within
    0.01 of the goal on both axes.

    Attributes:
        half_width: half the side of the square of goals.
        horizon: H.
    """

    half_width: float = 0.5
    horizon: int = 100
    task_size = 2

    def __post_init__(self) -> None:
        self.check_horizon()
        if not self.half_width > 0.0:
            raise ValueError(f"half_width must be positive, not {self.half_width}")

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.uniform(-self.half_width, self.half_width, (num_tasks, 2))

    def describe(self, task: Floats) -> str:
        return f"reach ({task[0]:+.2f}, {task[1]:+.2f})"

    def world(self, num: int, num_threads: int = 0) -> PointWorld:
        return PointWorld(num, self.half_width)


class SparsePointWorld(PointWorld):
    """Points that are rewarded near their goals only."""

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Move by the clipped action; the reward is 1 − ‖s' − g‖₂ within 0.2 of the goal."""
        rewards, terminated = super().step(actions, active, rng)
        near = rewards >= -RADIUS
        return np.where(near, 1.0 + rewards, 0.0), np.zeros_like(terminated)


@register_family("semicircle")
@dataclass(frozen=True)
class Semicircle(NativeTaskFamily):
    """Goals are uniform on the upper half of the unit circle, and only found by going there.

    Attributes:
        horizon: H; 100 as in VariBAD's code, 20 in that of Rakelly et al.
    """

    horizon: int = 100
    task_size = 2

    def __post_init__(self) -> None:
        self.check_horizon()

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        angles = rng.uniform(0.0, np.pi, num_tasks)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def describe(self, task: Floats) -> str:
        return f"find ({task[0]:+.2f}, {task[1]:+.2f})"

    def world(self, num: int, num_threads: int = 0) -> SparsePointWorld:
        return SparsePointWorld(num, half_width=1.0)
