"""Reliability of runs: after failures no data is lost, and no error is silent."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import dump_config, load_config
from metarl.launch import train as training
from metarl.launch.signals import INTERRUPTED
from metarl.method import load_method
from metarl.report import evaluations as results
from metarl.report.publish import publish
from metarl.rl.maml import MAML
from metarl.runs import checkpoint
from metarl.runs.metrics import MetricsLog, read_metrics
from metarl.runs.run import Run

KILLED_AT = str(Path(__file__).parent / "killed_at.py")
SETTINGS = [
    "family.settings.horizon=5",
    "outer.meta_batch=2",
    "outer.anneal=false",
    "inner.episodes_per_task=3",
    "evaluation.tasks=3",
    "evaluation.episodes_per_task=2",
    "policy.hidden_sizes=[4]",
    "checkpoint_every=2",
]
TINY = [f"--set={setting}" for setting in SETTINGS]


def command(out: Path, iterations: int, *more: str) -> list[str]:
    length = f"--set=outer.iterations={iterations}"
    return ["train", "point_navigation_small", "--out", str(out), *TINY, length, *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    assert main(command(path, 5)) == 0
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run of five iterations, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def outcome(path: Path) -> tuple[object, ...]:
    """The parts of a run that must be reproducible bit for bit."""
    state = Run.open(path).load()
    weights = {name: leaf.numpy().tobytes() for name, leaf in state.params.items()}
    lines = [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(path)
    ]
    return state.iteration, state.samples, weights, lines, (path / "evaluation.json").read_bytes()


def points(path: Path, tag: str = "Return/after_0_steps") -> list[int]:
    """The steps that TensorBoard shows."""
    events = EventAccumulator(str(path))
    events.Reload()
    return [point.step for point in events.Scalars(tag)]


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """SIGHUP has its default action, also if the tests run under nohup, which trainings respect."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def start_training(path: Path, *more: str, lines: int = 3) -> "subprocess.Popen[str]":
    """A training in a subprocess that has logged a number of iterations."""
    arguments = [sys.executable, "-m", "metarl", *command(path, 1_000_000, *more)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    await_lines(path, lines)
    return process


def await_lines(path: Path, lines: int) -> None:
    metrics, deadline = path / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= lines):
        assert time.monotonic() < deadline
        time.sleep(0.005)


# killed


def test_an_evaluation_that_is_interrupted_while_it_is_plotted_is_repeated(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [run / name for name in ("evaluation.json", "evaluation.csv", "adaptation.png")]
    for file in files:
        file.unlink()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "plot_adaptation", interrupt)
    with pytest.raises(KeyboardInterrupt):
        results.evaluate(Run.open(run))
    assert not results.is_complete(Run.open(run), load_method(Run.open(run).config))
    monkeypatch.undo()
    assert main(["train", "--resume", str(run)]) == 0
    assert all(file.exists() for file in files)


def test_the_users_evaluation_of_a_complete_run_is_kept(run: Path, complaint) -> None:
    file, other = run / "evaluation.json", "--set=evaluation.tasks=4"
    assert main(["evaluate", str(run), other]) == 0
    evaluation = file.read_bytes()
    assert "is complete" in complaint("train", "--resume", str(run))
    metarl.train(Run.open(run).config, run, resume=True)
    assert file.read_bytes() == evaluation


def test_a_complete_run_is_evaluated_again_with_other_settings_on_request(
    run: Path, complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    resume, file = ["train", "--resume", str(run)], run / "evaluation.json"
    with monkeypatch.context() as patch:
        patch.setattr(results, "plot_adaptation", interrupt)
        assert main([*resume, "--set=evaluation.tasks=4"]) == INTERRUPTED
    assert len(json.loads(file.read_text())["tasks"]) == 3
    assert main(resume) == 0
    assert len(json.loads(file.read_text())["tasks"]) == 4
    assert "is complete" in complaint(*resume)
    # several runs are trained by processes of their own
    assert main(["train", "--resume", str(run.parent), "--set=evaluation.tasks=5"]) == 0
    assert len(json.loads(file.read_text())["tasks"]) == 5


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_when_resumed(
    finished: Path, tmp_path: Path, complaint
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    settings = [*SETTINGS, "outer.iterations=5"]
    (path / "config.yaml").write_text(dump_config(load_config("point_navigation_small", settings)))
    assert "has no checkpoint yet" in complaint("evaluate", str(path))
    anew = complaint(*command(path, 5))
    assert f"stopped before its first checkpoint; continue that one with --resume {path}" in anew
    assert main(["train", "--resume", str(path)]) == 0
    assert outcome(path) == outcome(finished)


def test_the_directory_of_a_run_killed_before_its_config_counts_as_empty(
    finished: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in (".lock", ".config.yaml.0123.tmp", "weights-000000.safetensors"):
        (path / name).write_text("")
    assert main(command(path, 5)) == 0
    assert outcome(path) == outcome(finished)
    assert not list(path.glob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected_files"),
    [(2, []), (8, ["config.yaml"]), (20, ["config.yaml", "state.json"])],
)
def test_processes_restarted_by_torchrun_continue_the_run(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected_files: list[str],
) -> None:
    path = tmp_path / "run"
    arguments = [sys.executable, KILLED_AT, str(number), *command(path, 5)]
    killed = subprocess.run(arguments, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    files = {file.name for file in path.iterdir()}
    assert [name for name in ("config.yaml", "state.json") if name in files] == expected_files
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(command(path, 5)) == 0
    assert outcome(path) == outcome(finished)


def test_a_trained_run_without_its_state_is_not_started_again(run: Path, complaint) -> None:
    (run / "state.json").unlink()
    assert "has lost its state.json" in complaint("train", "--resume", str(run))
    assert len(read_metrics(run)) == 5


@pytest.mark.slow
def test_a_run_killed_between_two_file_operations_resumes_to_the_same_result(
    finished: Path, tmp_path: Path
) -> None:
    """The short form tests every eleventh operation; `make soak` tests all."""
    number, status = 1, -signal.SIGKILL
    while status == -signal.SIGKILL:
        path = tmp_path / str(number)
        arguments = [sys.executable, KILLED_AT, str(number), *command(path, 5)]
        status = subprocess.run(arguments, capture_output=True, check=False).returncode
        began = (path / "config.yaml").exists()
        again = ["train", "--resume", str(path)] if began else command(path, 5)
        if status:
            assert main(again) == 0
        assert outcome(path) == outcome(finished)
        assert points(path) == [1, 2, 3, 4, 5]
        number += 11
    assert status == 0
    assert number > 15


def test_temporary_files_of_a_killed_process_are_removed_on_resume(run: Path) -> None:
    (run / ".state.json.0123.tmp").write_text("{")
    assert main(["train", "--resume", str(run), "--set=outer.iterations=6"]) == 0
    assert not list(run.glob("*.tmp")) + list(run.glob(".*.tmp"))


# interrupted


@pytest.mark.parametrize(("iterations", "saved"), [(100, 2), (1, 1)])
def test_signals_do_not_interrupt_the_writing_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iterations: int, saved: int
) -> None:
    path, write = tmp_path / "run", Run.save

    def interrupted(run: Run, state, *more) -> None:
        if state.iteration:
            os.kill(os.getpid(), signal.SIGINT)
            write(run, state, *more)
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            write(run, state, *more)

    monkeypatch.setattr(Run, "save", interrupted)
    assert main(command(path, iterations)) == INTERRUPTED
    assert Run.open(path).load().iteration == saved == len(read_metrics(path))


def test_a_second_signal_does_not_interrupt_the_saving_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "run", MetricsLog.write

    def interrupted(log: MetricsLog, iteration: int, metrics) -> None:
        write(log, iteration, metrics)
        if iteration == 3:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(MetricsLog, "write", interrupted)
    assert main(command(path, 100)) == INTERRUPTED
    assert Run.open(path).load().iteration == 3 == len(read_metrics(path))


def test_a_signal_stops_an_iteration_and_a_second_one_does_not_stop_its_cleanup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, updates, cleaned = tmp_path / "run", training.iterations, []

    def interrupted(method, state):
        for update in updates(method, state):
            yield update
            if update[0].iteration == 3:
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(60.0)
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)
                    cleaned.append(True)

    monkeypatch.setattr(training, "iterations", interrupted)
    assert main(command(path, 100)) == INTERRUPTED
    assert cleaned
    assert Run.open(path).load().iteration == 3 == len(read_metrics(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "pause"),
    [
        ((signal.SIGINT, signal.SIGINT), 0.003),
        ((signal.SIGINT, signal.SIGTERM), 0.02),
        ((signal.SIGHUP,), 0.0),
    ],
)
def test_signals_do_not_lose_finished_iterations(tmp_path: Path, numbers, pause: float) -> None:
    process = start_training(tmp_path / "run", "--set=checkpoint_every=1000000")
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "metarl train --resume" in output
    assert 3 <= Run.open(tmp_path / "run").load().iteration == len(read_metrics(tmp_path / "run"))


@pytest.mark.slow
def test_a_training_under_nohup_ignores_sighup(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start_training(tmp_path / "run")
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    await_lines(tmp_path / "run", len(read_metrics(tmp_path / "run")) + 20)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_a_checkpoint_is_written_after_a_number_of_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], Run.save
    monkeypatch.setattr(training, "CHECKPOINT_MINUTES", 0.0)
    monkeypatch.setattr(Run, "save", lambda run, state, *a: saved.append(state.iteration))
    monkeypatch.setattr(Run, "description", lambda run: pytest.fail("nothing was saved"))
    with pytest.raises(pytest.fail.Exception):
        main(command(tmp_path / "run", 3, "--set=checkpoint_every=100"))
    assert saved == [0, 1, 2, 3]
    assert save is not Run.save


# several processes


@pytest.mark.slow
def test_only_one_process_trains_a_run_and_others_can_read_it(tmp_path: Path, complaint) -> None:
    path = tmp_path / "run"
    process = start_training(path, "--set=checkpoint_every=1")
    try:
        error = complaint("train", "--resume", str(path))
        assert f"is being trained by process {process.pid} on" in error
        with pytest.raises(UserError, match="is being trained by process"):
            publish(Run.open(path), tmp_path / "published")
        assert not (tmp_path / "published").exists()
        for _ in range(100):  # which checkpoints come and go beneath
            Run.open(path).load()
        assert main(["evaluate", str(path)]) == 0
    finally:
        process.kill()
        process.communicate()
    longer = f"--set=outer.iterations={Run.open(path).load().iteration + 1}"
    assert main(["train", "--resume", str(path), longer]) == 0


@pytest.mark.slow
def test_the_lock_is_released_with_its_process_even_if_a_child_survives(run: Path) -> None:
    holder = (
        "import os, sys, time; from pathlib import Path; from metarl.runs.run import Run\n"
        "with Run.open(Path(sys.argv[1])).locked():\n"
        "    child = os.fork()\n"
        "    if not child: os.close(1); time.sleep(60)\n"
        "    print(child, flush=True); time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", holder, str(run)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(UserError, match="is being trained"), Run.open(run).locked():
            pass
        process.kill()
        process.communicate()
        os.kill(child, 0)
        with Run.open(run).locked():
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_checkpoint_replaced_during_reading_is_read_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer, read_bytes = Run.open(run), Run.open(run), checkpoint.read_bytes
    state = writer.load()

    def overtaken(file: Path, largest: int) -> bytes:
        if file.name == checkpoint.weights_name(state.iteration):
            writer.save(type(state)(9, state.params, state.opt_state, 99))  # these are gone now
        return read_bytes(file, largest)

    monkeypatch.setattr(checkpoint, "read_bytes", overtaken)
    assert reader.load().iteration == 9


def test_an_evaluation_records_its_weights_even_if_newer_ones_are_saved_meanwhile(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, evaluate = Run.open(run).weights_sha256(), MAML.evaluate

    def overtaken(method, params):
        writer = Run.open(run)
        state = writer.load()
        writer.save(type(state)(9, {n: v + 1 for n, v in state.params.items()}, {}, 99))
        return evaluate(method, params)

    monkeypatch.setattr(MAML, "evaluate", overtaken)
    results.evaluate(Run.open(run))
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert (evaluation["weights_sha256"], evaluation["iteration"]) == (sha256, 5)
    assert Run.open(run).weights_sha256() != sha256


# metrics


def test_tensorboard_shows_each_iteration_of_a_resumed_run_once(
    tmp_path: Path,
) -> None:
    for iteration in (0, 0, 2):
        log = MetricsLog(tmp_path, iteration, "return", "seed: 1")
        for number in range(iteration + 1, iteration + 4):
            log.write(number, {"score": 1.0})
        log.close()
    assert points(tmp_path, "score") == [1, 2, 3, 4, 5]
    assert [line["iteration"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_an_incomplete_last_line_of_metrics_loses_no_iteration(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n{"iteration": 2}')
    log = MetricsLog(tmp_path, 2, "return", "seed: 1")
    log.write(3, {})
    log.close()
    assert [line["iteration"] for line in read_metrics(tmp_path)] == [1, 2, 3]


# what was edited


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  step_size: 0.5", "  step_size: 0.7", "inner.step_size: 0.5 → 0.7"),
        ("    horizon: 5", "    horizon: 5\n    half_width: 1", "half_width: None → 1"),
        ("  settings:\n    horizon: 5", "  settings: {}", "family.settings.horizon: 5 → None"),
        ("seed: 1\ndevice", "seed: 2\ndevice", "seed: 1 → 2"),
    ],
)
def test_a_run_with_an_edited_config_is_refused(
    run: Path, complaint, old: str, new: str, named: str
) -> None:
    file = run / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    for arguments in (["train", "--resume"], ["evaluate"]):
        error = complaint(*arguments, str(run))
        assert "is not what the run was trained with" in error
        assert named in error
    file.write_text(text)
    assert main(["evaluate", str(run)]) == 0


def test_settings_without_influence_may_be_edited_and_old_runs_have_no_record(run: Path) -> None:
    config, state = run / "config.yaml", run / "state.json"
    config.write_text(config.read_text().replace("iterations: 5", "iterations: 6"))
    assert main(["train", "--resume", str(run)]) == 0
    assert Run.open(run).load().iteration == 6
    description = json.loads(state.read_text())
    del description["config"]
    state.write_text(json.dumps(description))
    assert Run.open(run).load().iteration == 6


# a disk that is full, a directory that is gone


@pytest.mark.slow
@pytest.mark.parametrize("file", ["weights", "state.json", "metrics.jsonl", "evaluation.json"])
def test_a_full_disk_is_reported_and_the_run_can_be_resumed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, file: str
) -> None:
    path, used = tmp_path / "run", 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal used
        if file in os.readlink(f"/proc/self/fd/{descriptor}"):
            used += 1
            if used > (file in ("weights", "state.json")):  # the first checkpoint finds room
                raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(command(path, 5)) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert f"cannot write to {path} (No space left on device)" in error
    assert not list(path.glob(".*.tmp"))
    assert Run.open(path).load().iteration in (0, 5)
    assert main(["train", "--resume", str(path)]) == 0
    assert outcome(path) == outcome(finished)


def test_a_full_disk_during_logging_is_reported(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path, event = tmp_path / "run", MetricsLog._write_event

    def full(log: MetricsLog, **what) -> None:
        if what.get("step") == 4:
            raise OSError(28, "No space left on device")
        event(log, **what)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "_write_event", full)
        assert main(command(path, 5)) == 1
    assert "No space left on device" in capsys.readouterr().err
    # the iteration whose metrics could not be written is repeated
    assert Run.open(path).load().iteration == 3
    assert main(["train", "--resume", str(path)]) == 0
    assert outcome(path)[:3] == outcome(finished)[:3]


@pytest.mark.slow
def test_a_run_on_a_full_file_system_can_be_resumed(finished: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        path = disk / "run"
        arguments = [sys.executable, "-m", "metarl", *command(path, 80)]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert "No space left on device" in result.stderr
        assert "Traceback" not in result.stderr
        assert 0 < Run.open(path).load().iteration < 80
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        assert main(["train", "--resume", str(path)]) == 0
        assert [line["iteration"] for line in read_metrics(path)] == [*range(1, 81)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_deleted_during_training_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path, write = tmp_path / "run", MetricsLog.write

    def deleting(log: MetricsLog, iteration: int, metrics) -> None:
        write(log, iteration, metrics)
        shutil.rmtree(path)

    monkeypatch.setattr(MetricsLog, "write", deleting)
    assert main(command(path, 5)) == 1
    assert f"the directory {path} no longer exists" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_read_only_directory_is_reported(run: Path, complaint) -> None:
    mount = ["mount", "--bind", str(run), str(run)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may make a directory that root cannot write")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(run)], check=True)
        resume = ["train", "--resume", str(run), "--set=outer.iterations=6"]
        assert "Read-only file system" in complaint(*resume)
        assert "Read-only file system" in complaint(*command(run / "new", 5))
    finally:
        subprocess.run(["umount", str(run)], check=True)


# what is damaged

DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "mark": b"\xef\xbb\xbf{",
    "binary": bytes(range(256)),
    "torn": b'{"iteration": 1, ',
    "deep": b"[" * 100_000,
    "digits": b'{"iteration": 1' + b"0" * 5000 + b"}",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["state.json", "metrics.jsonl", "evaluation.json", "config.yaml"])
def test_the_error_names_a_corrupt_file(run: Path, complaint, damage: str, file: str) -> None:
    content = DAMAGES[damage]
    if file == "metrics.jsonl":
        content += b"\n"  # a last line that is torn is none
    (run / file).write_bytes(content)
    out = str(run.parent / "out")
    assert file.split(".")[0].replace("state", "checkpoint") in (
        complaint("compare", str(run), "--out", out)
    )


def edit_state(run: Path, **changes: object) -> None:
    """Change values in state.json."""
    file = run / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iteration": -1},
        {"iteration": 6},
        {"iteration": 10**400},
        {"iteration": 2.5},
        {"iteration": True},
        {"samples": -1},
        {"samples": None},
        {"weights": "../run/weights-000005.safetensors"},
        {"weights": "/dev/zero"},
        {"sha256": "0" * 64},
        {"sha256": 3},
        {"order": []},
        {"order": ["theta.weight0", "elsewhere.weight1"]},
        {"provenance": [1]},
        {"config": "family"},
    ],
)
def test_an_invalid_state_is_reported(run: Path, complaint, changes):
    edit_state(run, **changes)
    assert "is damaged" in complaint("evaluate", str(run))
    assert "is damaged" in complaint("train", "--resume", str(run))


@pytest.mark.parametrize(
    "line",
    [
        {"iteration": -1},
        {"iteration": "1"},
        {"iteration": 1, "x": 10**400},
        {"x": 1},
        {"iteration": 1, "x": [1]},
    ],
)
def test_invalid_metrics_are_reported(run: Path, complaint, line) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    resume = complaint("train", "--resume", str(run), "--set=outer.iterations=6")
    assert "metrics.jsonl is damaged (line 6" in resume
    assert Run.open(run).load().iteration == 5


def test_metrics_of_another_version_are_reported(run: Path, complaint) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6}\n')
    error = complaint("compare", str(run), "--out", str(run.parent / "out"))
    assert "line 6 of" in error
    assert "lacks environment_steps" in error


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": [[1.0]]},
        {"scores": [[1.0, 2.0], [1.0]]},
        {"scores": "none"},
        {"tasks": []},
        {"step_sizes": [float("nan"), 0.1, 0.1]},
        {"settings": {"tasks": -1}},
        {"settings": None},
    ],
)
def test_an_invalid_evaluation_is_reported(run: Path, complaint, changes) -> None:
    file = run / "evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    error = complaint("compare", str(run), "--out", str(run.parent / "out"))
    assert "evaluation.json is damaged" in error
    assert f"metarl evaluate {run}" in error


def replace_weights(run: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Other weights, with the checksum that belongs to them."""
    state = Run.open(run).load()
    theta = dict(state.params)
    change(theta)
    Run.open(run).save(type(state)(state.iteration, theta, state.opt_state, state.samples))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda theta: theta.update(weight0=torch.zeros(3, 3)), "weight0 is float32 of shape"),
        (lambda theta: theta.update(bias0=theta["bias0"].double()), "bias0 is float64"),
        (lambda theta: theta.update(bias0=theta["bias0"].int()), "bias0 is int32"),
        (lambda theta: theta.pop("log_std"), "should be"),
        (lambda theta: theta.update(more=torch.zeros(1)), "should be"),
        (lambda theta: theta.update(bias0=theta["bias0"] / 0), "bias0 has numbers"),
    ],
)
def test_weights_of_another_network_are_refused_despite_a_valid_checksum(
    run: Path, complaint, change, named: str
) -> None:
    replace_weights(run, change)
    resume = ["train", "--set=outer.iterations=9", "--resume"]
    for arguments in (["evaluate"], ["compare"], ["render"], resume):
        error = complaint(*arguments, str(run))
        assert "don't match its config" in error
        assert named in error


@pytest.mark.parametrize("kind", ["maml", "pretrained"])
def test_optimiser_states_of_another_network_are_refused(
    tmp_path: Path, complaint, kind: str
) -> None:
    path = tmp_path / "run"
    if kind == "maml":
        adam = "--set=outer={algorithm: adam, iterations: 2, meta_batch: 2}"
        assert main([*command(path, 2, adam)[:-2], adam]) == 0
    else:
        more = ["--set=baseline.batch_size=10", "--set=baseline.step_sizes=[0.1]"]
        assert main(["baseline", "--kind", kind, *command(path, 1, *more)[1:]]) == 0
    state = Run.open(path).load()
    short = {n: leaf[:-1] if leaf.ndim else leaf for n, leaf in state.opt_state.items()}
    Run.open(path).save(type(state)(state.iteration, state.params, short, state.samples))
    longer = "--set=outer.iterations=9"
    assert "restore" in complaint("train", "--resume", str(path), longer)


@pytest.mark.parametrize("name", ["state.json", "config.yaml", "weights", "evaluation.json"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_special_files_are_refused_before_they_are_read(
    run: Path, complaint, name: str, kind: str
) -> None:
    file = next(run.glob(f"{name}*"))
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")
    assert "is not a regular file" in complaint("compare", str(run), "--out", str(run / "out"))


def test_oversized_weights_are_refused_before_they_are_read(run: Path, complaint) -> None:
    with next(run.glob("weights*")).open("r+b") as file:
        file.truncate(2**40)  # a sparse file
    assert "bytes, more than" in complaint("evaluate", str(run))


def test_a_name_with_a_null_character_is_reported(complaint) -> None:
    for arguments in (["train", "point_navigation_small", "--out", "a\0b"], ["evaluate", "a\0b"]):
        assert "has a NUL character" in complaint(*arguments)


def test_a_shipped_run_is_not_trained_in_place(
    run: Path, complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarl.config.files.trained_runs", lambda: {"shipped": run})
    error = complaint("train", "--resume", "shipped", "--set=outer.iterations=6")
    assert f"is a read-only run of the package; copy {run}, and resume the copy" in error
    assert Run.open(run).load().iteration == 5
