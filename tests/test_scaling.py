"""Scaled observations: measured once, recorded, and equal for training and acting."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO

import metarl
from metarl.baselines.rl2 import RL2
from metarl.baselines.stable_baselines import load_model
from metarl.cli import main
from metarl.envs import PointNavigation, half_cheetah_direction
from metarl.envs.point_navigation import PointWorld
from metarl.envs.scaling import measure_scale
from metarl.experiment import load_config
from metarl.method import load_method, resolve
from metarl.report.reproduce_command import reproduce_command
from metarl.rl.external_data import from_arrays, to_arrays
from metarl.runs.run import Run

TINY = [
    "family.settings.horizon=10",
    "outer.meta_batch=2",
    "outer.iterations=2",
    "outer.anneal=false",
    "inner.episodes_per_task=2",
    "evaluation.tasks=3",
    "evaluation.episodes_per_task=2",
    "policy.hidden_sizes=[8]",
    "baseline.value_hidden_sizes=[4]",
    "baseline.step_sizes=[0.1]",
    "baseline.batch_size=10",
]
SCALE = [2.0 + 0.1 * i for i in range(20)]


def run(command: str, out: Path, *more: str) -> Run:
    settings = [f"--set={setting}" for setting in TINY]
    arguments = [*command.split(), "half_cheetah_direction", "--out", str(out), *settings]
    assert main([*arguments, *more]) == 0
    return Run.open(out)


def test_velocities_are_scaled_down_and_angles_up_by_at_most_five() -> None:
    family = half_cheetah_direction()
    scale = np.array(measure_scale(family))
    assert scale.shape == (20,)
    assert (scale[:8] == 5.0).all()
    assert (scale[11:17] < 0.5).all()
    assert measure_scale(family) == tuple(scale)


def test_a_position_is_not_scaled_up() -> None:
    *_, forward, _, height = measure_scale(half_cheetah_direction())
    assert (forward, height) == (1.0, 5.0)
    assert measure_scale(PointNavigation()) == (1.0, 1.0)


def test_a_position_with_bounds_is_scaled_up(monkeypatch) -> None:
    def bounded(self: PointWorld, num: int, half_width: float) -> None:
        initialise(self, num, half_width)
        self.observation_space = gym.spaces.Box(-10.0, np.array([10.0, np.inf]), (2,))

    initialise = PointWorld.__init__
    monkeypatch.setattr(PointWorld, "__init__", bounded)
    # 0.035 m of standard deviation a step, ten times as far in 100 steps
    assert measure_scale(PointNavigation()) == (pytest.approx(2.5, rel=0.2), 1.0)


def test_the_scale_is_measured_on_episodes_that_end_early(
    in_users_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(in_users_folder)
    from my_tasks import Line, LineFamily

    class EndsAtOnce(LineFamily):
        def make(self, render_mode=None):
            return TimeLimit(Line(), 1)

    assert len(measure_scale(EndsAtOnce())) == 1


def test_only_resolve_and_the_family_of_a_problem_measure_the_scale(monkeypatch) -> None:
    calls = []

    def measure(family) -> tuple[float, ...]:
        calls.append(family)
        return measure_scale(family)

    monkeypatch.setattr("metarl.rl.problem.measure_scale", measure)
    config = load_config("half_cheetah_direction", ["family.settings.horizon=10"])
    assert config.policy.observation_scale == "measured"
    method = load_method(config)
    assert (method.label, method.problem.title) == ("MAML", "half-cheetah-direction")
    assert reproduce_command(config.model_copy(update={"seed": 3})).endswith("--set seed=3")
    assert calls == []
    resolved = resolve(config)
    assert len(calls) == 1
    assert load_method(resolved).problem.family.scale == resolved.policy.observation_scale
    assert resolve(resolved) is resolved
    assert len(calls) == 1
    # a run without the values, as of a development version, works like one with them
    assert method.problem.family.scale == resolved.policy.observation_scale


def test_scaled_observations_are_raw_ones_times_the_factors() -> None:
    problem = load_method(
        load_config("half_cheetah_direction", [f"policy.observation_scale={SCALE}"])
    ).problem
    family, scale = problem.unscaled_family_and_scale
    assert scale == tuple(SCALE)
    tasks = np.ones((3, 1))
    results = []
    for task_family in (family, problem.family):
        envs = task_family.make_vec(3)
        first, _ = envs.reset(seed=5, options={"task": tasks})
        second, *_ = envs.step(np.full((3, 6), 0.3))
        single, _ = task_family.make().reset(seed=5, options={"task": tasks[0]})
        results.append((first, second, single))
    for raw, scaled in zip(*results, strict=True):
        np.testing.assert_array_equal(scaled, raw * np.array(SCALE))


@pytest.mark.slow
def test_the_measured_scale_is_recorded_and_equal_for_baselines(
    tmp_path: Path,
) -> None:
    measure_setting = "--set=policy.observation_scale=measured"
    maml_run = run("train", tmp_path / "maml", measure_setting)
    pretrained_run = run(
        "baseline --kind pretrained", tmp_path / "pretrained", measure_setting, "--set=seed=7"
    )
    scale = maml_run.config.policy.observation_scale
    assert scale == measure_scale(half_cheetah_direction(horizon=10))
    assert pretrained_run.config.policy.observation_scale == scale
    assert "measured" not in (tmp_path / "maml" / "config.yaml").read_text()
    longer = [
        "--set=outer.iterations=3",
        measure_setting,
        *(f"--set={setting}" for setting in TINY[:2]),
    ]
    longer += [f"--set={setting}" for setting in TINY[3:]]
    again = ["train", "half_cheetah_direction", "--resume", str(maml_run.path), *longer]
    assert main(again) == 0
    assert Run.open(maml_run.path).load().iteration == 3


def test_the_task_of_an_oracle_is_not_scaled() -> None:
    settings = [f"policy.observation_scale={SCALE}", "method=oracle"]
    problem = load_method(load_config("half_cheetah_direction", settings)).problem
    _, scale = problem.unscaled_family_and_scale
    assert scale == (*SCALE, 1.0)


def test_a_recurrent_policy_receives_scaled_observations() -> None:
    settings = [f"policy.observation_scale={SCALE}"]
    method = load_method(load_config("half_cheetah_direction_rl2", settings))
    assert isinstance(method, RL2)
    assert method.problem.unscaled_family_and_scale[1] == tuple(SCALE)


def test_an_exported_policy_gives_the_same_actions_for_raw_observations(tmp_path: Path) -> None:
    trained_run = run("train", tmp_path / "run", f"--set=policy.observation_scale={SCALE}")
    model_file = tmp_path / "model.zip"
    assert main(["export", str(trained_run.path), str(model_file)]) == 0
    method = load_method(trained_run.config)
    params = trained_run.load().params
    env = half_cheetah_direction(horizon=10).make()
    observation, _ = env.reset(seed=1, options={"task": np.ones(1)})
    model = PPO.load(model_file, env=env)
    action, _ = model.predict(observation.astype(np.float32), deterministic=True)
    scaled = torch.tensor(observation * np.array(SCALE)).float().unsqueeze(0)
    expected = method.policy.distribution(params, scaled)["mean"][0].clamp(-1, 1)
    np.testing.assert_allclose(action, expected.numpy(), atol=1e-5)
    back, _ = load_model(model_file, method.policy, SCALE)
    torch.testing.assert_close(back["weight0"], params["weight0"])


def test_a_scale_of_another_length_is_reported(complaint, tmp_path: Path) -> None:
    more = ["--set=policy.observation_scale=[1.0, 2.0]", "--out", str(tmp_path / "run")]
    message = complaint("train", "half_cheetah_direction", *more)
    assert "policy.observation_scale has 2 values, but observations have 20" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["sometimes", "[0.0]", "[.nan]", "-1"])
def test_an_invalid_scale_is_reported(complaint, value: str) -> None:
    message = complaint(
        "train", "half_cheetah_direction", f"--set=policy.observation_scale={value}"
    )
    assert (
        "policy.observation_scale: must be `measured`, or one positive number per observation"
        in message
    )
    assert "an error" in message


def test_a_loaded_policy_scales_the_observations_of_any_environment(tmp_path: Path) -> None:
    trained_run = run("train", tmp_path / "run", f"--set=policy.observation_scale={SCALE}")
    policy = metarl.load(trained_run.path)
    env = half_cheetah_direction(horizon=10).make()
    observation, _ = env.reset(seed=1, options={"task": np.ones(1)})
    scaled = torch.tensor(observation * np.array(SCALE)).float().unsqueeze(0)
    expected = policy.method.policy.distribution(policy.params, scaled)["mean"][0]
    action = policy.act(observation, deterministic=True)
    np.testing.assert_allclose(action, expected.numpy(), atol=1e-5)
    # played episodes have raw observations, which are scaled when they are adapted to
    episodes = policy.play(env, task=[1.0], episodes=2)
    assert abs(np.asarray(episodes[0].observations)[0, 0]) < 0.1
    arrays = to_arrays(policy.method.policy, episodes, scale=SCALE)
    samples = from_arrays(policy.method.policy, policy.params, arrays)
    assert torch.allclose(
        samples.observations[0, 0], torch.tensor(episodes[0].observations) * torch.tensor(SCALE)
    )
    adapted = policy.adapt(episodes)
    assert not torch.equal(adapted.params["weight0"], policy.params["weight0"])


def test_a_run_with_a_measured_scale_can_be_resumed_in_python(tmp_path: Path) -> None:
    settings = [*TINY, "policy.observation_scale=measured"]
    config = load_config("half_cheetah_direction", settings)
    metarl.train(config, tmp_path / "run")
    longer = load_config("half_cheetah_direction", [*settings, "outer.iterations=3"])
    assert metarl.train(longer, tmp_path / "run", resume=True).load().iteration == 3
