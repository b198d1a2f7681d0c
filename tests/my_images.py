"""A custom gridworld with image observations and discrete actions."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from metarl.envs import vectorise

SIDE = 5
MOVES = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])


class Grid(gym.Env):
    """Walk from the middle of a grid; the reward is progress towards an unobserved corner."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 4}
    observation_space = gym.spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.corner = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options and "task" in options:
            self.corner = np.asarray(options["task"])
        self.place = np.array([2, 2])
        return self._image(), {}

    def step(self, action):
        before = np.abs(self.place - self.corner).sum()
        self.place = np.clip(self.place + MOVES[int(action)], 0, SIDE - 1)
        progress = before - np.abs(self.place - self.corner).sum()
        return self._image(), float(progress), False, False, {}

    def render(self):
        return np.repeat(self._image(), 3, axis=2).repeat(8, 0).repeat(8, 1)

    def _image(self):
        image = np.zeros((SIDE, SIDE, 1), np.uint8)
        image[tuple(self.place)] = 255
        return image


class Corners:
    """The four corners."""

    task_size = 2

    def __init__(self, horizon=4):
        self.horizon = horizon

    def sample_tasks(self, rng, num_tasks):
        return rng.integers(2, size=(num_tasks, 2)) * (SIDE - 1.0)

    def describe(self, task):
        return f"go to ({task[0]:.0f}, {task[1]:.0f})"

    def make(self, render_mode=None):
        return TimeLimit(Grid(render_mode), self.horizon)

    def make_vec(self, num_envs):
        return vectorise(self.make, num_envs)


class Strokes(Corners):
    """The same with a continuous action: a direction, of which the larger component is used."""

    def make(self, render_mode=None):
        def move(action):
            axis = int(np.abs(action[1]) > np.abs(action[0]))
            return 2 * (1 - axis) + int(action[axis] < 0)

        plane = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        return gym.wrappers.TransformAction(super().make(render_mode), move, plane)
