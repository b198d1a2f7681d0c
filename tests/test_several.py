"""Several runs in one directory, trained in parallel: seeds and sweeps."""

import csv
import io
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

import metarl
from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.launch import scheduler, several
from metarl.launch.grid import as_grid, as_seeds, parse_grid, variants
from metarl.launch.scheduler import Job, run_jobs
from metarl.launch.several import LaunchOptions, find_runs, train_runs
from metarl.method import load_method
from metarl.progress import Progress
from metarl.rl.config import Config
from metarl.runs.run import Run

CONFIG = """
data: sinusoid
network: {kind: mlp, hidden_sizes: [8]}
inner: {step_size: 0.01, shots: 2, queries: 2}
outer: {iterations: 3, meta_batch: 2}
evaluation: {tasks: 5, steps: 1}
"""

# a process in place of a training, which records when it began and ended
STAND_IN = """
import json, signal, sys, time
folder, action = sys.argv[1:]
def record(event):
    with open(folder + "/events", "a") as file:
        print(event, time.monotonic(), file=file)
def stop(*_):
    record("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
record("began")
if action == "none":
    sys.exit(0)
if action == "killed":
    signal.raise_signal(signal.SIGKILL)
with open(folder + "/metrics.jsonl", "w") as file:
    print(json.dumps({"iteration": 7, "return/after_0_steps": -2.5}), file=file)
if action == "fail":
    print("much\\nmetarl: the disk is full;\\nfix that")
    sys.exit(2)
time.sleep({"work": 0.4, "wait": 60.0}[action])
record("ended")
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Job]:
    """Makes a job whose process is a stand-in; there are two processors."""
    monkeypatch.setattr(scheduler, "TRAIN", (sys.executable, "-c", STAND_IN))
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(scheduler, "processors", lambda: 2)

    def make(name: str, action: str) -> Job:
        path = tmp_path / name
        path.mkdir()
        return Job(name, path, 10, "return", (str(path), action))

    return make


def times(job: Job) -> dict[str, float]:
    file = job.run / "events"
    lines = file.read_text().splitlines() if file.exists() else []
    return {event: float(time) for event, time in map(str.split, lines)}


def run(jobs: list[Job], stop: Callable[[], bool] = lambda: False):
    """The statuses, the failures, and the log."""
    log, failures = io.StringIO(), []
    with Progress(Console(file=log)) as progress:
        statuses = run_jobs(jobs, stop, lambda *failure: failures.append(failure), progress)
    return statuses, failures, log.getvalue()


def test_a_pruned_run_stops_and_does_not_fail(job) -> None:
    failures, kept, pruned = [], job("seed-1", "work"), job("seed-2", "wait")
    with Progress(Console(file=io.StringIO())) as progress:
        statuses = run_jobs(
            [kept, pruned], lambda: False, lambda *f: failures.append(f), progress, pruned.__eq__
        )
    assert (statuses[kept], statuses[pruned]) == (0, 130)
    assert {"began", "saved"} == times(pruned).keys()
    assert not failures


# in parallel


def test_one_run_per_processor_is_trained_concurrently(job) -> None:
    jobs = [job(f"seed-{seed}", "work") for seed in range(4)]
    statuses, failures, log = run(jobs)
    assert list(statuses.values()) == [0, 0, 0, 0]
    assert not failures
    spans = [times(job) for job in jobs]
    together = [
        sum(other["began"] <= span["began"] < other["ended"] for other in spans) for span in spans
    ]
    assert max(together) == 2
    assert "seed-3: iteration 7/10, return -2.50" in log


def test_a_failed_run_is_reported_and_the_others_continue(job) -> None:
    jobs = [job("seed-1", "fail"), job("seed-2", "work"), job("seed-3", "work")]
    statuses, failures, _ = run(jobs)
    assert [statuses[job] for job in jobs] == [2, 0, 0]
    assert failures == [(jobs[0], "the disk is full; fix that")]
    assert "much" in jobs[0].log.read_text()
    assert jobs[0].log.parent == jobs[0].run  # so that seed-* names runs alone


def test_a_killed_run_is_not_explained_by_what_an_earlier_process_logged(job) -> None:
    killed, failed = job("seed-1", "killed"), job("seed-2", "fail")
    for earlier in (killed, failed):
        earlier.log.write_text("metarl: the folder is missing\n")
    _, failures, _ = run([killed, failed])
    assert dict(failures)[killed] == "its process was ended by signal 9 (Killed)"
    assert dict(failures)[failed] == "the disk is full; fix that"


def test_a_run_whose_files_are_deleted_does_not_end_the_others(job) -> None:
    waiting, training, sound = job("seed-1", "work"), job("seed-2", "fail"), job("seed-3", "work")
    shutil.rmtree(waiting.run)

    def delete() -> bool:
        if "began" in times(training):
            training.log.unlink(missing_ok=True)
        return False

    statuses, failures, _ = run([waiting, training, sound], delete)
    assert statuses == {training: 2, sound: 0}
    (first, reason), (second, unread) = failures
    assert (first, second) == (waiting, training)
    assert "could not be started: [Errno 2]" in reason
    assert "output could not be read: [Errno 2]" in unread


@pytest.mark.parametrize("line", ["{", "[1]", '{"iteration": 1, "loss": null}', "[" * 50_000])
def test_damaged_metrics_of_one_run_do_not_end_the_others(job, line: str) -> None:
    damaged, sound = job("seed-1", "none"), job("seed-2", "work")
    (damaged.run / "metrics.jsonl").write_text(line + "\n")
    statuses, failures, _ = run([damaged, sound])
    assert list(statuses.values()) == [0, 0]
    assert not failures


def test_an_interrupt_stops_all_runs_once_and_starts_no_other(job) -> None:
    jobs = [job("seed-1", "wait"), job("seed-2", "wait"), job("seed-3", "work")]
    statuses, failures, _ = run(
        jobs, lambda: "began" in times(jobs[0]) and "began" in times(jobs[1])
    )
    assert statuses == {jobs[0]: 130, jobs[1]: 130}
    assert not failures
    for stopped in jobs[:2]:
        assert (stopped.run / "events").read_text().count("saved") == 1
    assert not times(jobs[2])


def test_all_runs_are_stopped_if_the_scheduler_fails(job) -> None:
    jobs = [job("seed-1", "wait")]

    def broken() -> bool:
        if "began" in times(jobs[0]):
            raise OSError("no more")
        return False

    with pytest.raises(OSError, match="no more"):
        run(jobs, broken)
    assert "saved" in times(jobs[0])


# which runs


def test_a_sweep_is_the_product_of_all_values_and_seeds() -> None:
    settings = ["inner.step_size=0.1, 0.2", "outer.iterations=5", "outer.anneal=true, no"]
    result = variants(parse_grid(settings), [4])
    assert [str(variant.path) for variant in result] == [
        "inner.step_size=0.1,outer.anneal=true/seed-4",
        "inner.step_size=0.1,outer.anneal=no/seed-4",
        "inner.step_size=0.2,outer.anneal=true/seed-4",
        "inner.step_size=0.2,outer.anneal=no/seed-4",
    ]
    assert result[3].overrides == (
        "inner.step_size=0.2",
        "outer.iterations=5",
        "outer.anneal=no",
        "seed=4",
    )


def test_commas_in_a_value_do_not_split_it() -> None:
    lists = variants(parse_grid(["policy.hidden_sizes=[64,64],[100,100]"]), [1, 2])
    assert [v.overrides[0] for v in lists] == ["policy.hidden_sizes=[64,64]"] * 2 + [
        "policy.hidden_sizes=[100,100]"
    ] * 2
    assert len(variants(parse_grid(["method={name: promp, steps: 3}"]), [1])) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["seed=1,2"], "use --seeds"),
        (["family.settings.horizon=5,10"], "start a sweep for each value"),
        (["evaluation.tasks=5,10"], "start a sweep for each value"),
        (["seed=3"], "use --seeds"),
        (["inner.step_size=0.1,,0.2"], "has an empty value"),
        (["inner.step_size"], "must have the form"),
        (["inner.step_size=0.1,0.1"], "given twice"),
        (["inner.steps=1,2", "inner.steps=3"], "given twice"),
    ],
)
def test_an_invalid_sweep_is_reported(settings: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        variants(parse_grid(settings), [1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "at least 1"),
        (["--seeds", "2", "2"], "given twice"),
        (["--seeds", "2", "--seed", "3"], "contradict"),
        (["--seeds", "2", "--set", "inner.stps=3"], "did you mean 'steps'"),
    ],
)
def test_invalid_seeds_are_reported_before_directories_are_created(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch, complaint
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in complaint("train", "sinusoid", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_incomparable_runs_is_not_started(tmp_path: Path, complaint) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    swept = ["--set", "inner.shots=2,3", "--out", str(tmp_path / "out")]
    sentence = complaint("sweep", str(tmp_path / "tiny.yaml"), *swept)
    assert "add --set evaluation.shots=…" in sentence
    assert not (tmp_path / "out").exists()


def test_runs_are_sorted_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    for name in ("a=0.5/seed-10", "a=0.5/seed-9", "a=0.05/seed-1", "seed-2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    result = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert result == ["a=0.05/seed-1", "a=0.5/seed-9", "a=0.5/seed-10", "seed-2"]


def test_the_seed_has_a_separate_option(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    out = tmp_path / "run"
    assert main(["train", str(tmp_path / "tiny.yaml"), "--seed", "7", "--out", str(out)]) == 0
    assert "seed: 7" in (out / "config.yaml").read_text()


# whole


@pytest.mark.slow
def test_seeds_equal_separate_trainings_and_more_can_be_added(tmp_path: Path, capsys) -> None:
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(CONFIG)
    assert main(["train", str(config), "--seed", "2", "--out", str(tmp_path / "alone")]) == 0
    assert main(["train", str(config), "--seeds", "1", "2", "--out", str(out)]) == 0
    assert re.search(r"│ seeds +│ +1, 2 │", capsys.readouterr().out)
    weights = [next(path.glob("*.safetensors")) for path in (tmp_path / "alone", out / "seed-2")]
    alone, beside = map(load_file, weights)
    assert all((alone[name] == beside[name]).all() for name in alone)

    before = (out / "seed-1" / "state.json").stat().st_mtime_ns
    (out / "seed-2" / "evaluation.json").unlink()  # as if it was stopped before
    assert main(["train", str(config), "--seeds", "3", "--resume", str(out)]) == 0
    assert "3 runs in" in (output := capsys.readouterr().out)
    assert "1 of them finished" in output
    assert (out / "seed-2" / "evaluation.json").exists()
    assert (out / "seed-1" / "state.json").stat().st_mtime_ns == before
    assert [path.name for path in find_runs(out)] == ["seed-1", "seed-2", "seed-3"]


@pytest.mark.slow
def test_seeds_and_sweeps_are_available_in_python(tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG)
    runs = metarl.train_seeds(config, 2, tmp_path / "seeds")
    assert [run.config.seed for run in runs] == [1, 2]
    assert [run.path.name for run in runs] == ["seed-1", "seed-2"]
    table = metarl.sweep(config, {"inner.step_size": [0.01, 1e-5]}, tmp_path / "sweep", seeds=[3])
    assert table.names == ["inner.step_size"]
    errors = [group.summary.estimate[-1] for group in table.groups]
    assert errors == sorted(errors)
    assert len(table.to_frame()) == 4
    assert config == yaml.safe_load(CONFIG)  # not changed


def test_a_config_without_effect_on_resumed_runs_is_refused(tmp_path: Path, complaint) -> None:
    config = load_config("sinusoid", ["network.hidden_sizes=[4]"])
    run = Run.create(tmp_path / "runs" / "seed-1", config)
    run.save(load_method(config).initial_state())
    for command in (["train", "sinusoid"], ["baseline", "--kind", "oracle"]):
        error = complaint(*command, "--resume", str(tmp_path / "runs"))
        assert "continue with their own settings" in error


@pytest.mark.parametrize("seeds", [0, [1, 1], [-1], [1.5], [], 2.0, "1,2"])
def test_invalid_seeds_are_refused_in_python(seeds, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seeds: "):
        metarl.train_seeds(yaml.safe_load(CONFIG), seeds, tmp_path / "seeds")
    assert not list(tmp_path.iterdir())


def test_seeds_and_values_may_be_arrays() -> None:
    assert as_seeds(np.arange(1, 4)) == as_seeds(np.int64(3)) == [1, 2, 3]
    steps = np.array([0.1, 0.2])
    assert as_grid({"inner.step_size": steps}) == {"inner.step_size": ["0.1", "0.2"]}
    for steps in ([*np.arange(1, 3)], range(1, 3), (1, 2)):
        assert as_grid({"inner.steps": steps}) == {"inner.steps": ["1", "2"]}
    assert as_grid({"method": "maml"}) == {"method": ["maml"]}


def test_the_command_that_continues_a_run_is_named_by_the_other_ones(
    tmp_path: Path, complaint
) -> None:
    single = tmp_path / "sweep" / "inner.steps=1" / "seed-1"
    single.mkdir(parents=True)
    (single / "config.yaml").write_text(CONFIG)
    error = complaint("sweep", "--resume", str(single))
    assert f"{single} holds a single run; continue it with metarl train --resume {single}" in error
    error = complaint("train", "--resume", str(tmp_path / "sweep"))
    assert f"continue them with metarl sweep --resume {tmp_path / 'sweep'}" in error


def test_a_failed_run_is_an_error_in_python(job, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(several, "_job", lambda out, run, options: job(run.path.name + "x", "fail"))
    with pytest.raises(UserError, match="seed-1x: the disk is full; fix that"):
        metarl.train_seeds(yaml.safe_load(CONFIG), [1], tmp_path / "seeds")


def test_equal_runs_of_a_sweep_are_refused_before_training(tmp_path: Path, complaint) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    for values in ("inner.step_size=0.1,0.10", "baseline.validation_tasks=3,4"):
        error = complaint("sweep", str(config), "--set", values, "--out", str(tmp_path / "out"))
        assert "are the same run: the settings in which they differ are equal, or have no" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_sweep_ends_with_a_table_sorted_by_score(tmp_path: Path, capsys) -> None:
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(CONFIG)
    swept = ["--set", "inner.step_size=0.01,1e-5", "--set", "outer.iterations=1", "--seeds", "2"]
    assert main(["sweep", str(config), *swept, "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["seeds"] for row in rows] == ["1 2", "1 2"]
    errors = [float(row["error_after_1_steps"]) for row in rows]
    assert errors == sorted(errors)
    batch_errors = [
        json.loads((path / "evaluation.json").read_text())["mean"][1]
        for path in find_runs(out)
        if f"={rows[0]['inner.step_size']}/" in str(path)
    ]
    assert sum(batch_errors) / 2 == pytest.approx(errors[0])
    output = capsys.readouterr().out
    assert output.index(f"│ {rows[0]['inner.step_size']} ") < output.index(
        f"│ {rows[1]['inner.step_size']} "
    )


@pytest.mark.slow
def test_ctrl_c_saves_and_stops_all_seeds(tmp_path: Path, monkeypatch) -> None:
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(CONFIG)

    def interrupt() -> None:
        while not all((out / f"seed-{seed}" / "metrics.jsonl").exists() for seed in (1, 2)):
            time.sleep(0.1)
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(scheduler, "processors", lambda: 2)
    threading.Thread(target=interrupt, daemon=True).start()
    arguments = ["--seeds", "3", "--set", "outer.iterations=1000000", "--out", str(out)]
    assert main(["train", str(config), *arguments]) == 130
    for seed in (1, 2):
        state = json.loads((out / f"seed-{seed}" / "state.json").read_text())
        assert state["iteration"] > 0
        assert "stopped after" in (out / f"seed-{seed}" / "training.log").read_text()
    assert not (out / "seed-3" / "state.json").exists()


def test_runs_to_add_vary_the_settings_that_the_runs_of_a_sweep_vary(tmp_path: Path) -> None:
    out, config = tmp_path / "out", load_config("sinusoid")
    for size in (0.1, 0.2):
        Run.create(out / f"inner.step_size={size}" / "seed-1", config).save_config()
    with pytest.raises(UserError, match=r"vary different settings \(inner.step_size\)"):
        metarl.sweep("sinusoid", {"inner.step_size": 0.4}, out, resume=True)
    assert len(find_runs(out)) == 2


def test_a_class_of_a_script_is_refused_before_processes_start(tmp_path: Path) -> None:
    config = {"family": {"name": "__main__:Poles"}}
    with pytest.raises(UserError, match=r"family.name=__main__:Poles: several runs .* a module"):
        train_runs({Path("seed-1"): Config(**config)}, tmp_path, LaunchOptions())
