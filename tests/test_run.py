"""Runs, resuming and the command line."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from metarl.cli import main
from metarl.experiment import load_config
from metarl.method import load_method
from metarl.runs.run import Run

TINY = [
    "--set=family.settings.horizon=10",
    "--set=outer.meta_batch=3",
    "--set=outer.anneal=false",
    "--set=inner.episodes_per_task=4",
    "--set=evaluation.tasks=5",
    "--set=evaluation.episodes_per_task=3",
    "--set=policy.hidden_sizes=[8]",
    "--set=checkpoint_every=2",
]


def train(out: Path, iterations: int, *more: str) -> int:
    return main(
        [
            "train",
            "point_navigation_small",
            "--out",
            str(out),
            *TINY,
            f"--set=outer.iterations={iterations}",
            *more,
        ]
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = Run.open(path).load()
    return {**state.params, **state.opt_state}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    assert train(path, 5) == 0
    return path


@pytest.mark.slow
def test_a_run_contains_config_weights_state_metrics_events_and_evaluation(finished: Path) -> None:
    names = {path.name.split(".")[0].split("-")[0] for path in finished.iterdir()}
    assert names >= {"config", "state", "weights", "metrics", "events", "evaluation", "adaptation"}
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[0].keys() >= {
        "return/after_0_steps",
        "return/after_1_steps",
        "outer/kl",
        "outer/accepted",
        "outer/line_search_steps",
        "policy/entropy",
        "time/sampling",
        "time/learning",
        "time/steps_per_second",
    }
    curve = json.loads((finished / "evaluation.json").read_text())
    assert len(curve["mean"]) == 4
    assert len(curve["tasks"]) == 5
    assert yaml.safe_load((finished / "config.yaml").read_text())["inner"]["gamma"] == 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "outer", [(), ("--set=outer={algorithm: adam, meta_batch: 3, iterations: 5}",)]
)
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path, outer) -> None:
    assert train(tmp_path / "whole", 5, *outer) == 0
    shorter = [s.replace("iterations: 5", "iterations: 3") for s in outer]
    assert train(tmp_path / "parts", 3, *shorter) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--set=outer.iterations=5"]) == 0
    reference, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert list(reference) == list(parts)
    assert all(torch.equal(reference[name], parts[name]) for name in reference)
    expected, evaluation = (
        json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "parts")
    )
    assert expected == evaluation


def test_two_evaluations_are_identical(finished: Path) -> None:
    before = (finished / "evaluation.json").read_text()
    assert main(["evaluate", str(finished)]) == 0
    assert (finished / "evaluation.json").read_text() == before


AVERAGED = """
from dataclasses import replace
import torch
from metarl.rl.maml import MAML

class AveragedMAML(MAML):
    # moves θ halfway to the average of all θ, which it keeps between iterations
    def step(self, state):
        average, count = state.extra.get("average.weight0"), state.extra.get("count")
        state, metrics = super().step(state)
        weight = state.params["weight0"]
        if count is None:
            average, count = weight.double(), torch.tensor(0)
        average = average + (weight.double() - average) / (count + 1)
        params = {**state.params, "weight0": (weight + average.float()) / 2}
        extra = {"average.weight0": average, "count": count + 1, "alias": params["weight0"]}
        return replace(state, params=params, extra=extra), metrics
"""


def test_a_method_with_extra_tensors_resumes_bit_for_bit(in_users_folder: Path) -> None:
    Path("averaged.py").write_text(AVERAGED)
    method = "--set=method=averaged:AveragedMAML"
    assert train(Path("whole"), 4, method) == 0
    assert train(Path("parts"), 2, method) == 0
    assert main(["train", "--resume", "parts", "--set=outer.iterations=4", "--trust-code"]) == 0
    reference, parts = (Run.open(Path(name), trust_code=True).load() for name in ("whole", "parts"))
    assert reference.extra["average.weight0"].dtype == torch.float64
    assert reference.extra["count"].item() == 4
    for before, after in ((reference.params, parts.params), (reference.extra, parts.extra)):
        assert list(before) == list(after)
        assert all(before[name].dtype == after[name].dtype for name in before)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_of_an_older_version_has_no_extra_tensors() -> None:
    for path in (Path(__file__).parent / "older_runs").iterdir():
        assert Run.open(path).load().extra == {}


@pytest.mark.slow
def test_a_metric_that_is_not_finite_does_not_damage_a_checkpoint(tmp_path: Path) -> None:
    config = load_config("point_navigation_small")
    run, state = Run.create(tmp_path / "run", config), load_method(config).initial_state()
    pending = {"outer/variance": math.nan, "loss": math.inf, "iterations": 1.0}
    run.save(replace(state, metric_accumulator=pending), {})
    loaded = Run.open(run.path).load().metric_accumulator
    assert repr(loaded) == repr(pending)


def test_an_interrupted_run_saves_and_prints_how_to_continue(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "metarl",
        "train",
        "point_navigation_small",
        "--out",
        str(path),
        *TINY,
    ]
    process = subprocess.Popen(
        [*command, "--set=outer.iterations=100000"], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    metrics = path / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "metarl train --resume" in output
    state = Run.open(path).load()
    assert 3 <= state.iteration == metrics.read_text().count("\n")


@pytest.mark.slow
def test_metrics_of_a_killed_run_after_its_checkpoint_are_discarded(
    finished: Path, tmp_path: Path
) -> None:
    path = tmp_path / "killed"
    assert train(path, 3) == 0
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "return/after_0_steps": 0.0}\n{"iterat')
    assert main(["train", "--resume", str(path), "--set=outer.iterations=5"]) == 0
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5]


def test_errors_on_the_command_line_are_reported(complaint, tmp_path) -> None:
    assert "name a config" in complaint("train")
    assert "did you mean 'quickstart'" in complaint("train", "quikstart")
    assert "no config file" in complaint("train", str(tmp_path / "absent.yaml"))
    assert "there is no command trian (did you mean 'train'?)" in complaint("trian")
    assert "contradict" in complaint("train", "--resume", "x", "--out", "y")
    assert "there is no run in" in complaint("train", "--resume", str(tmp_path / "none"))
    assert "there is no run in" in complaint("evaluate", str(tmp_path / "none"))
    out = ["--out", str(tmp_path / "run")]
    if not torch.cuda.is_available():
        gpu = ["train", "point_navigation_small", *out, "--set", "device=cuda"]
        assert "cuda is not available to torch" in complaint(*gpu)
    assert "did you mean 'step_size'" in complaint(
        "train", "point_navigation_small", *out, "--set", "inner.step_sise=1"
    )
    assert "inner.steps: must be" in complaint(
        "train", "point_navigation_small", *out, "--set", "inner.steps=-1"
    )
    assert "did you mean" in complaint(
        "train", "point_navigation_small", *out, "--set", "family.name=point-navigatoin"
    )
    assert not (tmp_path / "run").exists()


def test_a_directory_that_is_not_empty_is_not_changed(complaint, finished: Path, tmp_path) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir()}
    assert "already holds a run" in complaint(
        "train", "point_navigation_small", "--out", str(finished)
    )
    assert {path: path.read_bytes() for path in finished.iterdir()} == before
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not empty" in complaint("train", "point_navigation_small", "--out", str(tmp_path))


def test_a_directory_that_cannot_be_written_is_reported(complaint, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "run"
    assert "cannot write to" in complaint("train", "point_navigation_small", "--out", str(target))


@pytest.mark.slow
def test_a_resume_with_another_config_is_refused(complaint, finished: Path) -> None:
    before = (finished / "config.yaml").read_text()
    run = str(finished)
    error = complaint("train", "--resume", run, "--set", "inner.step_size=0.7")
    assert "inner.step_size: 0.5 → 0.7" in error
    assert "family.name" in complaint("train", "ant_goal", "--resume", run)
    assert "is complete" in complaint("train", "--resume", run)
    assert (finished / "config.yaml").read_text() == before


def test_an_annealed_run_cannot_be_made_longer(complaint, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert train(path, 2, "--set=outer.anneal=true") == 0
    error = complaint("train", "--resume", str(path), "--set=outer.iterations=4")
    assert "outer.iterations: 2 → 4" in error
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("step_size: 0.5", "step_size: 0.7"))
    edited = complaint("train", "--resume", str(path))
    assert "is not what the run was trained with" in edited
    assert "--set outer.iterations" not in edited


@pytest.mark.parametrize("damage", ["truncate", "flip", "absent", "json", "future"])
def test_a_corrupt_checkpoint_is_reported(capsys, complaint, tmp_path, damage) -> None:
    path = tmp_path / "run"
    assert train(path, 2) == 0
    capsys.readouterr()
    file = next(path.glob("weights-*"))
    data = file.read_bytes()
    match damage:
        case "truncate":
            file.write_bytes(data[:-7])
        case "flip":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "absent":
            file.unlink()
        case "json":
            (path / "state.json").write_text("{")
        case "future":
            config = (path / "config.yaml").read_text()
            (path / "config.yaml").write_text(config + "brand_new: 1\n")
    error = complaint("evaluate", str(path))
    expected = "made with other settings" if damage == "future" else "is damaged"
    assert expected in error


def test_help_has_examples(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert "metarl train --resume" in text
    assert "examples:" in text


def test_a_categorical_policy_trains_on_a_users_discrete_family(in_users_folder: Path) -> None:
    Path("mine.yaml").write_text("family: {name: 'my_tasks:LineFamily'}\n")
    tiny = [setting for setting in TINY if "horizon" not in setting]
    more = ["--set=outer={algorithm: trpo, iterations: 3, meta_batch: 3}"]
    assert main(["train", "mine.yaml", *tiny, *more]) == 0
    assert load_config("runs/mine/config.yaml").outer.iterations == 3


def test_the_device_is_the_cpu_unless_a_config_says_otherwise(tmp_path: Path, capsys) -> None:
    assert load_config("quickstart").device == load_config("sinusoid").device == "cpu"
    assert train(tmp_path / "auto", 1, "--set=device=auto") == 0
    expected = "cuda:0" if torch.cuda.is_available() else "the CPU, because torch finds no GPU"
    assert f"device: auto uses {expected}" in " ".join(capsys.readouterr().out.split())
