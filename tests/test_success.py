"""The metric of `info["success"]`: from any environment to evaluations, tables and plots."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.cli.output import curve_table
from metarl.envs import PointNavigation, vectorise
from metarl.envs.point_navigation import PointWorld
from metarl.envs.wrappers import _PersistentTask, _TaskPerEnv
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.params import repeat
from metarl.report.comparison import write_plots
from metarl.report.evaluations import load_or_evaluate
from metarl.report.results_page import write_page
from metarl.rl.adaptation import to_adaptation_curve
from metarl.rl.policies import policy_for
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import sample_episode
from metarl.rl.trajectories import Rollouts, Trajectories, concat_tasks
from metarl.rng import RngKey, make_torch_rng
from metarl.runs.metrics import progress_text


class Counter(gym.Env[Any, Any]):
    """Succeeds at the step that the task names, and terminates at the step after the next."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.goal = (options or {}).get("task", [0.0])[0]
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        info = {"success": self.steps == self.goal}
        return np.full(1, self.steps, np.float32), 0.5, self.steps == self.goal + 2, False, info


class Counters:
    """The family of these environments; the goal of every other task is never reached."""

    horizon = 6
    task_size = 1

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
        return np.where(np.arange(num_tasks) % 2, 3.0, 9.0)[:, None]

    def describe(self, task: np.ndarray) -> str:
        return f"step {task[0]:g}"

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Counter(), self.horizon)

    def make_vec(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        return vectorise(self.make, num_envs)


class GoalWorld(PointWorld):
    @property
    def success(self) -> np.ndarray:
        return np.linalg.norm(self._positions - self.tasks, axis=1) < 0.05


class GoalNavigation(PointNavigation):
    def world(self, num: int, num_threads: int = 0) -> GoalWorld:
        return GoalWorld(num, self.half_width)


def play(
    envs: VectorEnv[Any, Any, Any], goals: list[list[float]], horizon: int = 6
) -> Trajectories:
    policy = policy_for(envs.single_observation_space, envs.single_action_space, hidden_sizes=(4,))
    params = repeat(policy.init(make_torch_rng(0, "initialisation")), len(goals))
    return sample_episode(policy, params, envs, np.array(goals), horizon, RngKey(0))[0]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_an_episode_succeeds_if_any_of_its_steps_does(mode: AutoresetMode) -> None:
    makers = [lambda: _PersistentTask(Counters().make())] * 5
    envs = _TaskPerEnv(SyncVectorEnv(makers, autoreset_mode=mode))
    # the limit is 6 steps; the first episode ends after 3, what follows an autoreset does not count
    trajectories = play(envs, [[1.0], [3.0], [6.0], [7.0], [9.0]])
    assert trajectories.success is not None
    assert trajectories.success[:, 0].tolist() == [True, True, True, False, False]
    assert trajectories.success_rates is not None
    assert trajectories.success_rates.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_success_after_the_end_of_an_episode_does_not_count() -> None:
    class Late(Counter):
        """Succeeds at its first step after an autoreset only."""

        resets = 0

        def reset(self, **options: Any) -> Any:
            self.resets += 1
            return super().reset(**options)

        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return (*rest, {"success": self.resets > 1})

    # the first episode ends after one step; the second one goes on
    trajectories = play(vectorise(Late, 2), [[-1.0], [3.0]])
    assert trajectories.mask.sum(dim=2).ravel().tolist() == [1, 5]
    assert trajectories.success is not None
    assert not trajectories.success.any()


def test_native_environments_report_what_their_world_does() -> None:
    family = GoalNavigation(horizon=3)
    envs, env = family.make_vec(2), family.make()
    goals = np.array([[0.0, 0.0], [0.4, 0.4]])
    envs.reset(seed=0, options={"task": goals})
    info = envs.step(np.zeros((2, 2)))[4]
    assert info["success"].tolist() == [True, False]
    assert info["_success"].tolist() == [True, True]
    env.reset(seed=0, options={"task": goals[0]})
    assert env.step(np.zeros(2))[4] == {"success": True}


def test_trajectories_keep_success_where_all_parts_have_it() -> None:
    known = play(Counters().make_vec(2), [[3.0], [9.0]])
    unknown = play(PointNavigation(horizon=6).make_vec(1), [[0.3, 0.3]])
    assert concat_tasks([known, known]).success.tolist() == [[True], [False]] * 2
    assert unknown.success is None
    assert concat_tasks([unknown, unknown]).success is None


def test_success_of_a_wrong_shape_is_refused() -> None:
    class Scalar(gym.vector.VectorWrapper):
        def step(self, actions: Any) -> Any:
            *rest, _ = super().step(actions)
            return (*rest, {"success": True})

    with pytest.raises(UserError, match=r"a truth value for each environment, of shape \(2,\)"):
        play(Scalar(Counters().make_vec(2)), [[3.0], [9.0]])


def test_success_is_in_metrics_evaluations_tables_and_plots(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "policy": {"hidden_sizes": [4]},
        "inner": {"episodes_per_task": 5},
        "outer": {"meta_batch": 4, "iterations": 2},
        "evaluation": {"tasks": 4, "episodes_per_task": 5, "steps": 1},
    }
    config = metarl.Config(family={"name": Counters}, **settings)
    run = metarl.train(config, tmp_path / "run")
    metrics = run.metrics()
    assert [line["success/after_1_steps"] for line in metrics] == [0.5, 0.5]
    assert "pre / post success 0.50 / 0.50" in progress_text(metrics[0], "return")
    events = EventAccumulator(str(run.path)).Reload()
    assert [event.value for event in events.Scalars("Success/after_0_steps")] == [0.5, 0.5]
    curve = metarl.evaluate(run)
    rates = [[0.0, 0.0], [1.0, 1.0]] * 2
    assert curve.success is not None
    assert curve.success.tolist() == rates
    assert json.loads((run.path / "evaluation.json").read_text())["success"] == rates
    assert (run.path / "success.png").exists()
    assert (run.path / "rewards.png").exists()
    assert curve.rewards is not None
    assert curve.rewards.tolist() == [[0.5] * 6] * 2  # of the episodes that have not ended
    curve.rewards[1, -1] = np.nan  # no episode takes the last step
    again = metarl.AdaptationCurve.from_json(json.loads(json.dumps(curve.to_json())))
    assert np.array_equal(again.rewards, curve.rewards, equal_nan=True)
    assert np.array_equal(curve.truncate(0).rewards, curve.rewards[:1])
    with (run.path / "evaluation.csv").open() as file:
        assert [row["success_after_1_steps"] for row in csv.DictReader(file)] == ["0.0", "1.0"] * 2
    table = curve_table("", load_or_evaluate(run).method, [curve])
    assert [*table.columns[-1].cells] == ["0.50 [0.15, 0.85]"] * 2
    comparison = metarl.compare(run)
    assert "| success before adaptation | success after 1 step |" in str(comparison)
    assert comparison.to_frame()["success"].tolist() == [0.5, 0.5]
    plots = write_plots(comparison.groups, tmp_path, "png")
    assert {"success_adaptation.png", "success_training.png"} <= {
        path.name for paths in plots.values() for path in paths
    }
    written = write_page([load_or_evaluate(run)], tmp_path / "page.md", None)
    page, family = (path for path in written if path.suffix == ".md")
    rate = "0.50 [0.15, 0.85]"  # Wilson's interval, 4 tasks
    assert f"success {rate}" in page.read_text()
    assert f"| {rate} |" in family.read_text()


def test_curves_without_success_are_stored_as_before() -> None:
    curve = AdaptationCurve(np.zeros((2, 1)), np.ones((2, 2)), (0.1,))
    assert "success" not in curve.to_json()
    assert AdaptationCurve.from_json(curve.to_json()).success is None
    with_success = AdaptationCurve(np.zeros((2, 1)), np.ones((2, 2)), (0.1,), success=np.eye(2))
    assert np.array_equal(AdaptationCurve.from_json(with_success.to_json()).success, np.eye(2))
    assert with_success.truncate(0).success.tolist() == [[1.0], [0.0]]


def test_a_run_is_evaluated_on_its_test_tasks_or_on_its_training_tasks(tmp_path: Path) -> None:
    class Split(Counters):
        def sample_test_tasks(self, rng: np.random.Generator, num_tasks: int) -> np.ndarray:
            return np.full((num_tasks, 1), 2.0)

    def goals(family: type, split: str) -> set[float]:
        evaluation = {"tasks": 4, "split": split}
        config = metarl.Config(family={"name": "named-elsewhere"}, evaluation=evaluation)
        problem = PolicyProblem(config, family())
        problem.check()
        return set(problem.test_tasks()[0].ravel())

    assert goals(Split, "test") == {2.0}
    assert goals(Split, "train") == {3.0, 9.0}
    assert goals(Counters, "test") == {3.0, 9.0}
    with pytest.raises(UserError, match=r"evaluation\.split=train: .* one distribution"):
        goals(Counters, "train")


def test_success_that_is_reported_only_when_it_happens_is_a_rate_of_zero_elsewhere() -> None:
    unknown = play(vectorise(Counters().make, 4), [[9.0], [9.0]])
    known = replace(unknown, success=torch.ones(unknown.terminated.shape, dtype=torch.bool))
    unknown = replace(unknown, success=None)
    tasks = np.zeros((2, 1))
    curve = to_adaptation_curve(tasks, Rollouts([unknown, known], [], []), (0.1,))
    assert curve.success is not None
    assert curve.success.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert to_adaptation_curve(tasks, Rollouts([unknown] * 2, [], []), (0.1,)).success is None
