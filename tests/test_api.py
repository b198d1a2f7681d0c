"""The public interface: policies, networks, trainings and comparisons in Python."""

import json
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import metarl
from metarl.config.files import trained_runs
from metarl.envs import PointNavigation
from metarl.errors import UserError
from metarl.params import flatten
from metarl.rl.adaptation import collect
from metarl.rng import RngKey
from metarl.runs.metrics import MetricsLog
from metarl.runs.run import Run

TASK = [0.3, -0.3]
TINY = {
    "family": {"name": "point-navigation", "settings": {"horizon": 5}},
    "policy": {"hidden_sizes": [4]},
    "inner": {"episodes_per_task": 3},
    "outer": {"algorithm": "trpo", "iterations": 2, "meta_batch": 2},
    "evaluation": {"tasks": 3, "episodes_per_task": 2},
}


@pytest.fixture
def policy() -> metarl.AdaptivePolicy:
    return metarl.load("point_navigation")


@pytest.fixture
def env() -> gym.Env:
    return PointNavigation().make()


def test_importing_the_package_imports_no_heavy_package() -> None:
    heavy = "{'torch', 'numpy', 'gymnasium', 'pydantic'}"
    code = f"import metarl, sys; print({heavy} & sys.modules.keys()); metarl.UserError"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"


def test_help_shows_all_public_names() -> None:
    text = pydoc.plain(pydoc.render_doc(metarl))
    for name in metarl.__all__:
        assert name in dir(metarl)
        assert name in text
        assert getattr(metarl, name).__doc__
    # signatures name types instead of spelling them out
    assert not re.search(r"numpy\._typing|WrapValidator", text)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        metarl.laod  # noqa: B018


@pytest.mark.slow
def test_a_shipped_policy_adapts_in_a_custom_environment(policy, env) -> None:
    adapted = policy.adapt(env, task=TASK, episodes=20)
    before, after = (
        np.mean([episode.total for episode in agent.play(env, TASK, episodes=5)])
        for agent in (policy, adapted)
    )
    assert after > before + 10.0
    assert (policy.steps, adapted.steps) == (0, 1)
    assert adapted.returns == pytest.approx([before], abs=10.0)
    observation, _ = env.reset(options={"task": TASK})
    assert env.action_space.shape == adapted.act(observation).shape


def test_adaptation_equals_the_first_step_of_the_evaluation(policy) -> None:
    problem = policy.method.problem
    tasks = np.array([TASK])
    with_learned = problem.config.evaluation_step_sizes[:1]
    expected = collect(
        problem.inner,
        policy.params,
        PointNavigation().make_vec(6),
        tasks,
        100,
        RngKey(0),
        with_learned,
    )
    adapted = policy.adapt(PointNavigation().make_vec(6), task=TASK, episodes=6)
    for name, leaf in expected.params[1].items():
        torch.testing.assert_close(adapted.params[name], leaf[0], rtol=1e-4, atol=1e-6)


def test_a_single_environment_adapts_like_a_vector_environment(policy, env) -> None:
    # the point world draws nothing, and each round's noise is that of its number
    alone = policy.adapt(env, task=TASK, episodes=4, horizon=10)
    again = policy.adapt(env, task=TASK, episodes=4, horizon=10)
    pairs = policy.adapt(PointNavigation().make_vec(2), TASK, episodes=4, horizon=10)
    assert torch.equal(alone.params["log_std"], again.params["log_std"])
    assert alone.returns == pytest.approx(pairs.returns, rel=0.2)
    assert not torch.equal(alone.params["log_std"], policy.params["log_std"])


def test_adaptation_accepts_recorded_episodes_and_plain_lists(policy, env) -> None:
    episodes = policy.play(env, TASK, episodes=5, horizon=20)
    adapted = policy.adapt(episodes)
    from_lists = policy.adapt(
        [tuple(np.asarray(part).tolist() for part in episode) for episode in episodes]
    )
    for name, leaf in adapted.params.items():
        torch.testing.assert_close(from_lists.params[name], leaf)
    assert adapted.returns == pytest.approx([np.mean([episode.total for episode in episodes])])
    assert adapted.adapt(adapted.play(env, TASK, episodes=2)).steps == 2


def test_further_steps_use_the_step_sizes_of_the_evaluation(policy, env, monkeypatch) -> None:
    sizes = []

    def spy(self, meta, learned=None):
        step_sizes = spy.original(self, meta, learned)
        sizes.append(step_sizes[-1]["weight0"])
        return step_sizes

    inner = type(policy.method.problem.inner)
    spy.original = inner.step_sizes
    monkeypatch.setattr(inner, "step_sizes", spy)
    assert policy.adapt(env, TASK, steps=3, episodes=2, horizon=5).steps == 3
    assert tuple(sizes) == policy.method.problem.config.evaluation_step_sizes
    policy.adapt(env, TASK, step_size=0.7, episodes=2, horizon=5)
    assert sizes[-1] == 0.7


class Constant(gym.Env):
    """The reward is the first action; there are no tasks."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        assert not options
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), float(action[0]), False, False, {}


def test_adaptation_works_in_an_environment_without_tasks(policy) -> None:
    adapted = policy.adapt(Constant(), episodes=10, horizon=10)
    means = [agent.act(np.zeros(2), deterministic=True)[0] for agent in (policy, adapted)]
    assert means[1] > means[0]


def wide() -> gym.Env:
    return gym.wrappers.TransformObservation(
        Constant(), lambda o: o, gym.spaces.Box(-1.0, 1.0, (3,))
    )


def discrete() -> gym.Env:
    env = Constant()
    env.action_space = gym.spaces.Discrete(3)
    return env


H = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros(4)
MISTAKES = {
    "other observations": (lambda p: p.adapt(wide()), "takes observations of 2 numbers, but"),
    "other actions": (lambda p: p.adapt(discrete()), "chooses actions of 2 real numbers, but"),
    "no environment": (lambda p: p.adapt(3), "a gymnasium environment, or to a list of episodes"),
    "no episode": (lambda p: p.adapt([]), "no episode to adapt to"),
    "half an episode": (lambda p: p.adapt([H[:2]]), r"must be \(observations, actions, rewards\)"),
    "other lengths": (lambda p: p.adapt([(H[0], H[1], H[2][:3])]), r"shape \(4,\), not \(3,\)"),
    "a column of rewards": (
        lambda p: p.adapt([(H[0], H[1], H[2][:, None])]),
        r"rewards of episode 0 must have shape \(4,\), not \(4, 1\)",
    ),
    "not a number": (lambda p: p.adapt([(H[0] + np.nan, *H[1:])]), "must be finite numbers"),
    "old episodes": (lambda p: p.adapt([H], steps=2), "steps must be 1 for given episodes, not 2"),
    "no steps": (lambda p: p.adapt(Constant(), steps=0), "steps must be a whole number"),
    "a word as task": (lambda p: p.adapt(Constant(), task="left"), "a task must be a row of"),
    "another observation": (lambda p: p.act([0.0]), r"has shape \(2,\), or \(num_envs, 2\)"),
    "a video of another format": (lambda p: p.render("video.avi"), "suffix .mp4 or .gif"),
    "another task": (lambda p: p.render(task=[1.0]), r"shape \(2,\), such as \[.*\], not \(1,\)"),
    "an observation with info": (lambda p: p.act(([0.0, 0.0], {})), "observation, info = env"),
    "a list of runs": (lambda p: metarl.compare(["a", "b"]), "pass several as separate arguments"),
    "a number as config": (lambda p: metarl.train(3, "x"), "a config is a Config, a mapping, .* 3"),
    "an id to vectorise": (lambda p: metarl.vectorise("CartPole-v1", 2), "make_env is a function"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_errors_are_reported(policy, mistake: str) -> None:
    call, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence):
        call(policy)


def test_the_error_for_a_run_of_the_other_domain_names_the_function_to_use() -> None:
    with pytest.raises(UserError, match=r"metarl\.load_network\('sinusoid'\)|no policy"):
        metarl.load("sinusoid")
    with pytest.raises(UserError, match=r"has a policy: load it with metarl\.load"):
        metarl.load_network("point_navigation")


def test_a_run_of_the_other_domain_is_not_evaluated(tmp_path: Path) -> None:
    for name, load in (("point_navigation", metarl.load_network), ("sinusoid", metarl.load)):
        path = Path(shutil.copytree(trained_runs()[name], tmp_path / name))
        for file in path.glob("evaluation*"):
            file.unlink()
        with pytest.raises(UserError, match=r"has (a|no) policy"):
            load(path)
        assert not [*path.glob("evaluation*")]


def test_videos_are_rendered_of_a_custom_environment_and_of_the_family(
    policy, tmp_path: Path
) -> None:
    env = PointNavigation(horizon=3).make(render_mode="rgb_array")
    video = policy.render(tmp_path / "video.gif", task=TASK, env=env)
    assert len(video.frames) >= 4
    assert (tmp_path / "video.gif").stat().st_size > 1000


def test_an_adapted_network_is_saved_and_loaded(tmp_path: Path) -> None:
    network = metarl.load_network("sinusoid")
    with pytest.raises(UserError, match="the network is not adapted"):
        network.save(tmp_path / "wave.safetensors")
    x = np.linspace(-4.0, 4.0, 5)
    adapted = network.adapt(x, np.sin(x), steps=3)
    file = adapted.save(tmp_path / "waves" / "wave.safetensors")
    loaded = metarl.load_network("sinusoid").load(file)
    assert loaded.steps == 3
    assert np.array_equal(loaded.predict([0.5, 1.5]), adapted.predict([0.5, 1.5]))
    with pytest.raises(UserError, match="not written by the `save` of an adapted policy"):
        metarl.load("point_navigation").load(file)
    with pytest.raises(UserError, match="is not a saved network"):
        network.load(__file__)


def test_a_network_adapts_to_examples_and_predicts() -> None:
    network = metarl.load_network("sinusoid")
    x = np.linspace(-4.0, 4.0, 10)
    wave = network.adapt(x, 3.0 * np.sin(x - 1.0))
    grid = np.linspace(-3.0, 3.0, 20)
    error = np.mean((wave.predict(grid)[:, 0] - 3.0 * np.sin(grid - 1.0)) ** 2)
    unadapted = network.adapt(x, 3.0 * np.sin(x - 1.0), steps=0)
    assert error < 0.3 < np.mean((unadapted.predict(grid)[:, 0] - 3.0 * np.sin(grid - 1.0)) ** 2)
    for call, sentence in (
        (lambda: network.predict(x), "the network is not adapted"),
        (lambda: network.adapt(x, x[:3]), "one target for each input"),
        (lambda: network.adapt(x[:, None, None], x), r"the shape \(examples, 1\)"),
        (lambda: network.adapt(x, x, steps=99), "steps must be an integer from 0 to"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()


def test_an_iteration_whose_metrics_cannot_be_written_is_repeated(tmp_path, monkeypatch) -> None:
    settings = {"inner": {"shots": 2, "queries": 2}, "outer": {"iterations": 4, "meta_batch": 2}}
    network = {"kind": "mlp", "hidden_sizes": [8]}
    config = {
        "data": "sinusoid",
        "network": network,
        "report_every": 1,
        "evaluation": {"tasks": 5, "steps": 1},
        **settings,
    }
    write = MetricsLog.write

    def fail_once(self, iteration, metrics) -> None:
        if iteration == 2:
            monkeypatch.setattr(MetricsLog, "write", write)
            raise OSError("no space left")
        write(self, iteration, metrics)

    monkeypatch.setattr(MetricsLog, "write", fail_once)
    with pytest.raises(OSError, match="no space left"):
        metarl.train(config, tmp_path / "run")
    run = metarl.train(config, tmp_path / "run", resume=True)
    assert [line["iteration"] for line in run.metrics()] == [1, 2, 3, 4]
    whole = metarl.train(config, tmp_path / "whole")
    assert torch.equal(flatten(run.load().params), flatten(whole.load().params))


def test_training_from_python_can_be_resumed(tmp_path: Path) -> None:
    iterations = []

    def stop(state, metrics):
        iterations.append(state.iteration)
        if state.iteration == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        metarl.train(TINY, tmp_path / "run", callbacks=[stop])
    with pytest.raises(UserError, match="use resume=True"):
        metarl.train(TINY, tmp_path / "run")
    run = metarl.train(TINY, tmp_path / "run", resume=True, callbacks=[stop])
    reference = metarl.train(metarl.Config(**TINY), tmp_path / "whole")
    assert iterations == [1, 2]
    assert run.weights_sha256() == reference.weights_sha256()
    assert [line["iteration"] for line in Run.open(run.path).metrics()] == [1, 2]
    assert metarl.load(run).evaluate().scores.shape == (3, 4)
    # with other settings it does not replace the run's own
    assert len(metarl.evaluate(run, tasks=4).scores) == 4
    assert len(metarl.load(run).evaluate().scores) == 3
    metarl.evaluate(run, name="four", tasks=4)
    assert len(json.loads((run.path / "evaluation-four.json").read_text())["scores"]) == 4
    with pytest.raises(UserError, match="no such setting"):
        metarl.evaluate(run, taks=4)
    for name in ("a/b", "Four", "best", ""):
        with pytest.raises(UserError, match="name must be small letters"):
            metarl.evaluate(run, name=name, tasks=4)


@pytest.mark.slow
def test_curves_metrics_and_comparisons_convert_to_dataframes(policy, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = policy.evaluate().to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame) == ["task", "step", "score", "episodes"]
    means = frame.groupby("step").score.mean()
    assert means.to_numpy() == pytest.approx(policy.evaluate().summary.estimate)
    runs = [metarl.train({**TINY, "method": name}, tmp_path / name) for name in ("maml", "random")]
    assert len(runs[0].to_frame()) == 2
    compared = metarl.compare(*runs)
    assert "| MAML |" in str(compared)
    assert {*compared.to_frame().method} == {"MAML", "random"}


def test_the_error_without_pandas_names_pandas(policy, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        policy.evaluate().to_frame()


TYPED = """
import gymnasium, metarl
from metarl.rl import Config

class Poles:
    pass

metarl.train(Config(family={"name": "poles"}, outer={"iterations": 3, "meta_batch": 5}), "out")
metarl.Config(family={"name": Poles}, method="promp", seed=2)
metarl.SupervisedConfig(data="sinusoid", network={"kind": "mlp"}, inner={"shots": 5})
policy = metarl.load("point_navigation")
env = gymnasium.make("metarl/PointNavigation-v0")
total: float = policy.adapt(env, task=[0.1, 0.2]).play(env)[0].total
steps: int = policy.adapt([([[0.0, 0.0]], [[0.0, 0.0]], [0.0])]).steps
scores = policy.evaluate().scores.mean()
"""


@pytest.mark.slow
def test_the_public_names_are_typed_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mypy import api

    monkeypatch.chdir(tmp_path)  # where the package is a package, and no source to be checked
    source = Path(metarl.__file__).parents[1]
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\nmypy_path = {source}\n"
        "[mypy-metarl.*]\nfollow_imports = silent\n"
        # their types are not tested, and take most of the time
        "[mypy-torch.*,mujoco.*,scipy.*,matplotlib.*,rich.*,PIL.*,pandas.*,jinja2.*]\n"
        "follow_imports = skip\n"
    )
    (tmp_path / "right.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text(
        'import metarl\nmetarl.Config(famly={"name": "poles"})\nmetarl.load(3)\n'
    )
    output, _, _ = api.run(["--config-file", "mypy.ini", "right.py", "wrong.py"])
    errors = [line.split(":")[:2] for line in output.splitlines() if ": error:" in line]
    assert errors == [["wrong.py", "2"], ["wrong.py", "3"]], output


def test_a_config_accepts_a_class_in_place_of_its_name() -> None:
    config = metarl.Config(family={"name": PointNavigation}, seed=3)
    assert config.family.name == "metarl.envs.point_navigation:PointNavigation"
    assert config.seed == 3
