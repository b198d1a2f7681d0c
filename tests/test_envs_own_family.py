"""A user's own environment and family, which this package knows nothing of."""

import sys
from pathlib import Path

import numpy as np
import pytest

from metarl.envs import check_family, load_family, vectorise

SOURCE = """
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
"""


@pytest.fixture
def in_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_tasks.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    return tmp_path


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_users_family_is_named_by_module_and_class(
    in_users_folder: Path, asynchronous: bool
) -> None:
    family = load_family("my_tasks:LineFamily", {"spread": 2.0, "asynchronous": asynchronous})
    check_family(family, num_envs=3)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_sub_environment_keeps_its_task_across_autoresets(
    in_users_folder: Path, asynchronous: bool
) -> None:
    family = load_family("my_tasks:LineFamily")
    envs = vectorise(family.make, 2, asynchronous)
    tasks = np.array([[-5.0], [5.0]])
    envs.reset(seed=0, options={"task": tasks})
    for _ in range(20):
        observation, reward, *_ = envs.step(np.array([1, 1]))
        moved = reward != 0.0  # the step of an autoreset pays nothing
        expected = -np.abs(observation[:, 0] - tasks[:, 0])
        np.testing.assert_allclose(reward[moved], expected[moved])
    envs.close()


def test_the_contract_checker_says_what_is_wrong(in_users_folder: Path) -> None:
    family = load_family("my_tasks:LineFamily")

    class Careless(type(family)):  # type: ignore[misc]
        def sample_tasks(self, rng, num_tasks):
            return np.zeros((num_tasks, 1))

    with pytest.raises(ValueError, match="rewards must depend on the task"):
        check_family(Careless())
