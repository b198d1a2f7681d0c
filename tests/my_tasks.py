"""A custom environment and task family of a user."""

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from metarl.envs import vectorise


class Line(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options and "task" in options:
            self.target = float(options["task"][0])
        self.x = self.np_random.normal()
        return np.array([self.x]), {}

    def step(self, action):
        self.x += 0.1 if action else -0.1
        return np.array([self.x]), -abs(self.x - self.target), False, False, {}


class LineFamily:
    task_size = 1

    def __init__(self, spread=1.0, asynchronous=False):
        self.horizon, self.spread, self.asynchronous = 8, spread, asynchronous

    def sample_tasks(self, rng, num_tasks):
        return rng.normal(0.0, self.spread, (num_tasks, 1))

    def describe(self, task):
        return f"stay at {task[0]:.2f}"

    def make(self, render_mode=None):
        return TimeLimit(Line(), self.horizon)

    def make_vec(self, num_envs):
        return vectorise(self.make, num_envs, self.asynchronous)
