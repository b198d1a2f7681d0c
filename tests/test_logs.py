"""Logging to TensorBoard and Weights & Biases."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.cli import main
from metarl.launch import weights_and_biases

CONFIG = """
data: sinusoid
network: {kind: mlp, hidden_sizes: [8]}
inner: {step_size: 0.01, shots: 2, queries: 2}
outer: {iterations: 3, meta_batch: 2}
evaluation: {tasks: 5, steps: 1}
report_every: 1
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Trains a network in no time, into the folder run."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return ["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]


class Wandb:
    """A stand-in for the package, which records its calls."""

    Error = type("Error", (Exception,), {})
    Settings = SimpleNamespace

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.begun: list[dict] = []
        self.logged: list[dict] = []
        self.finished = 0

    def init(self, **arguments) -> "Wandb":
        if self.refuses:
            raise self.Error(self.refuses)
        self.begun.append(arguments)
        return self

    def define_metric(self, name: str, **_) -> None:
        assert name in ("iteration", "*")

    def log(self, values) -> None:
        self.logged.append(dict(values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    stub = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr(weights_and_biases, "find_spec", lambda name: name)
    return stub


def test_tensorboard_shows_scores_first_and_the_config_as_text(
    tmp_path: Path, command: list[str]
) -> None:
    assert main([*command, "--set", "early_stopping={every: 1, tasks: 2}"]) == 0
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    first = sorted(events.Tags()["scalars"])[:2]
    assert first == ["Error/after_1_steps", "Validation/error"]
    text = events.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "hidden_sizes" in text
    assert "seed: 1" in text


def test_weights_and_biases_receives_all_iterations_and_the_config(
    tmp_path: Path, command: list[str], wandb: Wandb
) -> None:
    assert main([*command, "--wandb", "waves"]) == 0
    (begun,) = wandb.begun
    assert begun["project"] == "waves"
    assert begun["config"]["outer"]["iterations"] == 3
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert wandb.logged == list(map(json.loads, lines))
    assert wandb.finished == 1


def test_a_resumed_run_continues_its_run_of_weights_and_biases(
    tmp_path: Path, command: list[str], wandb: Wandb
) -> None:
    assert main([*command, "--wandb", "waves"]) == 0
    longer = ["--set", "outer.iterations=5", "--wandb", "waves"]
    assert main(["train", "--resume", str(tmp_path / "run"), *longer]) == 0
    first, second = wandb.begun
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"
    assert [line["iteration"] for line in wandb.logged] == [1, 2, 3, 4, 5]


def test_the_error_without_the_package_names_the_extra(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, complaint
) -> None:
    monkeypatch.setattr(weights_and_biases, "find_spec", lambda name: None)
    assert "pip install 'metarl-maml[wandb]'" in complaint(*command, "--wandb", "waves")
    assert not (tmp_path / "run").exists()


def test_the_error_without_an_account_names_the_fix(
    command: list[str], wandb: Wandb, complaint
) -> None:
    wandb.refuses = "No API key configured."
    sentence = complaint(*command, "--wandb", "waves")
    assert "No API key configured." in sentence
    assert "WANDB_MODE=offline" in sentence
    wandb.refuses = ""
    assert main([*command, "--wandb", "waves"]) == 0  # nothing is left of the first attempt


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="the extra wandb is not installed")
def test_the_real_package_records_a_run_offline(tmp_path: Path, command: list[str]) -> None:
    run = [sys.executable, "-m", "metarl", *command, "--wandb", "waves"]
    subprocess.run(run, env=os.environ | {"WANDB_MODE": "offline"}, check=True, cwd=tmp_path)
    (log,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert (tmp_path / "run" / "wandb-id").read_text().strip() in log.name
    assert b"after_1_steps" in log.read_bytes()
