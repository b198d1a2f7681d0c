"""A grid with a hidden goal, and its Bayes-optimal return (Zintgraf et al. 2020, section 5.1)."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl.envs.drawing import draw_cells
from metarl.envs.family import register_family
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask, SimulationRng

MOVES = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]])  # stay, up, right, down, left
GOAL_REWARD, STEP_REWARD = 1.0, -0.1


class GridWorld:
    """Agents in a square grid, each with a goal (x, y)."""

    fps = 4

    def __init__(self, num: int, size: int) -> None:
        self.observation_space = gym.spaces.Box(0.0, size - 1.0, (2,), np.float64)
        self.action_space = gym.spaces.Discrete(len(MOVES))
        self.tasks: Floats = np.zeros((num, 2))
        self._size = size
        self._cells = np.zeros((num, 2), dtype=np.int64)

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """Every episode starts in the corner (0, 0)."""
        self._cells[selected] = 0

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Move inside the grid; the reward is 1 on the goal, which ends nothing, and else −0.1."""
        moved = np.clip(self._cells + MOVES[actions], 0, self._size - 1)
        self._cells = np.where(active[:, None], moved, self._cells)
        is_goal = (self._cells == self.tasks).all(axis=1)
        return np.where(is_goal, GOAL_REWARD, STEP_REWARD), np.zeros(len(actions), dtype=bool)

    def observe(self) -> Floats:
        """The cell (x, y), (num, 2)."""
        return self._cells.astype(np.float64)

    def render(self, index: int) -> Frame:
        """The grid with the goal, which the agent does not observe, and the agent."""
        shades = np.zeros((self._size, self._size))
        (x, y), (column, row) = self.tasks[index].astype(int), self._cells[index].tolist()
        shades[self._size - 1 - y, x] = 1.0
        return draw_cells(shades, (self._size - 1 - row, column))

    def close(self) -> None:
        """Nothing to release."""


@register_family("gridworld")
@dataclass(frozen=True)
class Gridworld(NativeTaskFamily):
    """Find a goal that is in any cell but the four of the corner where every episode starts.

    Attributes:
        size: cells of a side.
        horizon: H.
    """

    size: int = 5
    horizon: int = 15
    task_size = 2

    def __post_init__(self) -> None:
        self.check_horizon()
        if not isinstance(self.size, int) or self.size < 3:
            raise ValueError(f"size must be an integer of at least 3, not {self.size!r}")

    @property
    def goals(self) -> NDArray[np.int64]:
        """The cells where the goal can be, (G, 2)."""
        return np.array([cell for cell in product(range(self.size), repeat=2) if max(cell) > 1])

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return rng.choice(self.goals, num_tasks).astype(np.float64)

    def validate_task(self, task: Floats) -> None:
        if not np.isin(task, range(self.size)).all():
            raise ValueError(f"a goal is a cell with x and y in 0 ... {self.size - 1}")

    def describe(self, task: Floats) -> str:
        return f"find ({task[0]:.0f}, {task[1]:.0f})"

    def bayes_optimal_return(self, episodes: int) -> float:
        """The expected return of optimal play over all episodes of a trial.

        Until the goal is found, all observations are the same, so that a policy is a walk. Once it
        is found, the best is to stay, and to go there directly in later episodes. The best walk is
        found by dynamic programming over (cell, visited cells), without the walks whose upper bound
        does not exceed the return of a good one. It takes half a minute for 5 x 5 cells.

        Raises:
            ValueError: if the grid is too large.
        """
        if self.size > 6:
            raise ValueError(f"the optimum of a grid of size {self.size} is out of reach; use 6")
        floor = self._best_gain(episodes, -np.inf, width=2000)  # a beam search
        gain = max(floor, self._best_gain(episodes, floor))
        return gain / len(self.goals) + STEP_REWARD * episodes * self.horizon

    def _best_gain(self, episodes: int, floor: float, width: int | None = None) -> float:
        """The largest gain of a walk over never finding the goal, summed over goals.

        Walks that cannot exceed `floor` are dropped; with `width`, so many are kept after a step.
        """
        cells = np.array(list(product(range(self.size), repeat=2)))
        numbers = np.full(len(cells), -1)  # of the goals
        numbers[self.goals @ [self.size, 1]] = np.arange(len(self.goals))
        moved = cells[:, None] + MOVES[1:]
        is_inside = ((moved >= 0) & (moved < self.size)).all(axis=2)
        neighbours = np.where(is_inside, moved @ [self.size, 1], -1)
        step_gain = GOAL_REWARD - STEP_REWARD
        # in a later episode, the goal is reached by its distance from the corner
        later = step_gain * np.maximum(self.horizon - cells.sum(axis=1) + 1, 0)
        largest = np.sort(later[numbers >= 0])[::-1]
        steps = np.arange(episodes * self.horizon)
        now = step_gain * (self.horizon - steps % self.horizon)  # to the end of the episode
        remaining = episodes - 1 - steps // self.horizon  # episodes after this one

        places, found, gains = np.zeros(1, int), np.zeros(1, int), np.zeros(1)
        best = 0.0
        for step in steps:
            if step % self.horizon == 0:
                places = np.zeros_like(places)
            places = neighbours[places].ravel()
            inside = places >= 0
            places = places[inside]
            found, gains = found.repeat(4)[inside], gains.repeat(4)[inside]
            bits = np.where(numbers[places] >= 0, 1 << numbers[places], 0)
            is_new = (bits & ~found) != 0
            gains = gains + is_new * (now[step] + remaining[step] * later[places])
            found = found | bits
            # of the walks to the same cell through the same cells, the best
            order = np.lexsort((-gains, found, places))
            places, found, gains = places[order], found[order], gains[order]
            first = np.ones(len(order), dtype=bool)
            first[1:] = (places[1:] != places[:-1]) | (found[1:] != found[:-1])
            places, found, gains = places[first], found[first], gains[first]
            best = max(best, float(gains.max()))
            # at most one new cell per step, none at the first step of an episode; the sum of
            # products is largest with both factors in descending order
            times = steps[step + 1 :][steps[step + 1 :] % self.horizon > 0][: len(largest)]
            terms = now[times] + remaining[times] * largest[: len(times)]
            left = len(largest) - np.bitwise_count(found).astype(int)
            limits = np.concatenate([[0.0], terms.cumsum()])
            bounds = gains + limits[np.minimum(left, len(times))]
            kept = np.flatnonzero(bounds > floor + 1e-9)
            if width is not None:
                kept = np.argsort(-bounds)[:width]
            if not len(kept):
                break
            places, found, gains = places[kept], found[kept], gains[kept]
        return best

    def world(self, num: int, num_threads: int = 0) -> GridWorld:
        return GridWorld(num, self.size)
