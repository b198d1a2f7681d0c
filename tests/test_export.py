"""Exported policies act as the policy itself."""

import base64
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import metarl
from metarl import UserError
from metarl.baselines.stable_baselines import save_model
from metarl.cli import export as commands
from metarl.cli import main
from metarl.envs import PointNavigation
from metarl.envs.observations import flat_env
from metarl.method import load_method
from metarl.models import export as exporting
from metarl.models.policy import AdaptivePolicy
from metarl.rl.policies import policy_for
from metarl.rl.policy_agent import PolicyAgent

TINY = {
    "family": {"name": "point-navigation", "settings": {"horizon": 5}},
    "policy": {"hidden_sizes": [4], "observation_scale": [0.3, 2.0]},
    "inner": {"episodes_per_task": 10, "learned_step_sizes": "lslr"},
    "outer": {"algorithm": "adam", "iterations": 1, "meta_batch": 2},
    "evaluation": {"tasks": 2, "episodes_per_task": 10},
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> AdaptivePolicy:
    return metarl.load(metarl.train(TINY, tmp_path_factory.mktemp("export") / "run"))


def read(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The actions of an exported file, read without metarl."""
    if path.suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda rows: session.run(None, {"observations": rows})[0]
    if path.suffix == ".pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(path)
    else:
        module = torch.export.load(path).module()
    return lambda rows: module(torch.from_numpy(rows)).numpy()


@contextmanager
def initial_agent(config: dict) -> Iterator[PolicyAgent]:
    """An agent of a method with its initial parameters."""
    method = load_method(metarl.Config(**config))
    yield method.agent(method.initial_state().params, 0, (0.1,))
    method.close()


def actions(policy: AdaptivePolicy, rows: np.ndarray) -> np.ndarray:
    return policy.agent.fork(0).act(rows, deterministic=True)


@pytest.mark.parametrize(
    "suffix", [".pt", *[pytest.param(s, marks=pytest.mark.slow) for s in (".pt2", ".onnx")]]
)
def test_an_exported_policy_acts_as_the_adapted_one(
    suffix: str, policy: AdaptivePolicy, tmp_path: Path
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    adapted = policy.adapt(policy.method.problem.raw_family.make(), task=[0.4, 0.1])
    act = read(adapted.export(tmp_path / f"policy{suffix}"))
    for number in (1, 7):
        rows = np.random.default_rng(number).normal(size=(number, 2)).astype(np.float32)
        np.testing.assert_allclose(act(rows), actions(adapted, rows), rtol=1e-5, atol=1e-6)
        assert np.abs(act(rows) - actions(policy, rows)).max() > 1e-5


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("my_tasks:LineFamily", {}),  # discrete actions
        ("point-navigation", {"method": "cavia", "outer": {"algorithm": "adam"}}),
        ("point-navigation", {"policy": {"network": "my_networks:Net"}}),
    ],
)
def test_policies_of_other_kinds_are_exported(
    family: str, settings: dict, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    config = {**TINY, "family": {"name": family}, "policy": {"hidden_sizes": [4]}, **settings}
    config["inner"] = {"episodes_per_task": 10}
    with initial_agent(config) as agent:
        exporting.export(agent, tmp_path / "policy.pt")
        act = read(tmp_path / "policy.pt")
        rows = np.random.default_rng(0).normal(size=(3, agent.policy.observation_size))
        rows = rows.astype(np.float32)
        assert np.array_equal(act(rows), agent.act(rows, deterministic=True))


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_a_file_that_acts_differently_is_not_written(
    difference: float, policy: AdaptivePolicy, tmp_path: Path, monkeypatch
) -> None:
    class Other(exporting.DeterministicPolicy):
        def forward(self, observations):
            return super().forward(observations) + difference

    monkeypatch.setattr(exporting, "DeterministicPolicy", Other)
    with pytest.raises(UserError, match="does not act as this one"):
        policy.export(tmp_path / "policy.pt")
    assert not (tmp_path / "policy.pt").exists()


def test_a_network_that_torch_cannot_export_is_reported(
    policy: AdaptivePolicy, tmp_path: Path, monkeypatch
) -> None:
    def untraceable(*arguments):
        raise NotImplementedError("operator without a rule\nand a long explanation")

    monkeypatch.setattr(torch.jit, "trace", untraceable)
    with pytest.raises(UserError, match=r"\(NotImplementedError: operator without a rule\)"):
        policy.export(tmp_path / "policy.pt")


@pytest.mark.parametrize(
    ("method", "name", "sentence"),
    [
        ("rl2", "policy.onnx", "a policy with a memory cannot be exported"),
        ("oracle", "policy.pt", "a policy that observes the task can only be exported as .zip"),
        ("maml", "policy.h5", "the suffix selects the format"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    method: str, name: str, sentence: str, tmp_path: Path
) -> None:
    config = {**TINY, "method": method, "policy": {"hidden_sizes": [4]}, "inner": {}}
    if method == "oracle":  # it is trained by PPO, without an outer optimiser
        config["outer"] = {"iterations": 1, "meta_batch": 2}
    with initial_agent(config) as agent, pytest.raises(UserError, match=sentence):
        exporting.export(agent, tmp_path / name)


def test_onnx_without_its_packages_names_the_extra(
    policy: AdaptivePolicy, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"metarl-maml\[onnx\]"):
        policy.export(tmp_path / "policy.onnx")


def test_the_command_adapts_to_a_task_first(
    policy: AdaptivePolicy, tmp_path: Path, complaint, capsys
) -> None:
    run = str(policy.run.path)
    before, after = tmp_path / "before.pt", tmp_path / "after.pt"
    assert main(["export", run, str(before)]) == 0
    assert main(["export", run, str(after), "--task", "0.4", "0.1", "--steps", "2"]) == 0
    assert f"wrote {after}" in capsys.readouterr().out.replace("\n", "")
    rows = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    assert np.array_equal(read(before)(rows), actions(policy, rows))
    assert not np.array_equal(read(before)(rows), read(after)(rows))
    assert "exists already" in complaint("export", run, str(after))
    assert "has shape (2,)" in complaint("export", run, "new.pt", "--task", "1")
    assert "--steps belongs to --task" in complaint("export", run, "new.pt", "--steps", "1")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("policy.h5", "the suffix selects"),
        ("there.pt", "exists already"),
        ("there.pt/policy.pt", "(Not a directory); name another file"),
        ("policy.onnx", "metarl-maml[onnx]"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_policy_adapts(
    name: str, sentence: str, policy: AdaptivePolicy, tmp_path: Path, complaint, monkeypatch
) -> None:
    def adapt(*_: object) -> None:
        raise AssertionError("it adapted")

    monkeypatch.setattr(commands, "adapt_to_task", adapt)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    (tmp_path / "there.pt").touch()
    file = str(tmp_path / name)
    assert sentence in complaint("export", str(policy.run.path), file, "--task", "0.4", "0.1")


def test_a_file_is_exported_into_a_new_folder(policy: AdaptivePolicy, tmp_path: Path) -> None:
    assert policy.export(tmp_path / "new" / "policy.pt").exists()


def test_an_exported_model_of_nested_observations_needs_no_class_of_this_package(
    tmp_path: Path,
) -> None:
    class Nested(gym.ObservationWrapper):
        observation_space = gym.spaces.Dict({"position": gym.spaces.Box(-9.0, 9.0, (2,))})

        def observation(self, observation):
            return {"position": observation}

    env = flat_env(Nested(PointNavigation().make()))
    policy = policy_for(env.observation_space, env.action_space, hidden_sizes=(4,))
    save_model(tmp_path / "model.zip", policy, policy.init(torch.Generator()), env)
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        pickled = json.loads(archive.read("data"))["observation_space"][":serialized:"]
    assert b"metarl" not in base64.b64decode(pickled)
