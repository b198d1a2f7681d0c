"""Several processes started by torchrun give the same results as one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metarl.cli import main
from metarl.distributed import shard
from metarl.runs.run import Run

TINY = [
    "--set=family.settings.horizon=10",
    "--set=outer.meta_batch=5",
    "--set=inner.episodes_per_task=4",
    "--set=evaluation.tasks=5",
    "--set=evaluation.episodes_per_task=3",
    "--set=policy.hidden_sizes=[8]",
    "--set=checkpoint_every=1",
    # well conditioned, so that the order of summation is all that differs
    "--set=outer.curvature_fraction=1",
    "--set=outer.damping=0.1",
]


def torchrun(processes: int, logs: Path, *arguments: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += [f"--nproc-per-node={processes}", f"--log-dir={logs}"]  # else in the system's /tmp
    return [*launcher, "-m", "metarl", *arguments]


def train(processes: int, folder: Path, *command: str) -> Run:
    """Train with torchrun, or in this process if there is only one."""
    command = (*command, "--out", str(folder / str(processes)))
    if processes == 1:
        assert main(command) == 0
    else:
        started = torchrun(processes, folder / "logs", *command)
        subprocess.run(started, check=True, capture_output=True)
    return Run.open(folder / str(processes))


@pytest.mark.slow
def test_one_and_three_processes_end_with_the_same_policy(tmp_path: Path) -> None:
    # the five tasks are sharded as 2, 2, 1 (in some order)
    command = ["train", "point_navigation_small", *TINY, "--set=outer.iterations=3"]
    single, three = (train(processes, tmp_path, *command) for processes in (1, 3))
    expected, state = single.load(), three.load()
    assert state.iteration == 3
    assert state.samples == expected.samples
    for name, leaf in expected.params.items():
        # up to the order of summation
        torch.testing.assert_close(state.params[name], leaf, atol=1e-4, rtol=1e-3)
    for metrics, expected_metrics in zip(three.metrics(), single.metrics(), strict=True):
        assert metrics["return/after_1_steps"] == pytest.approx(
            expected_metrics["return/after_1_steps"], abs=1e-3
        )


@pytest.mark.slow
def test_two_processes_train_e_maml_like_a_single_one(tmp_path: Path) -> None:
    command = [
        "train",
        "point_navigation_small",
        *TINY,
        "--set=outer.iterations=3",
        "--set=method=e_maml",
    ]
    single, two = (train(n, tmp_path, *command).load() for n in (1, 2))
    for name, leaf in single.params.items():
        torch.testing.assert_close(two.params[name], leaf, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_two_processes_train_rl2_like_a_single_one(tmp_path: Path) -> None:
    # three tasks, sharded as 1 and 2; each shard has trials of all four minibatches
    settings = ["outer.meta_batch=3", "inner.episodes_per_task=4", "family.settings.horizon=10"]
    settings += ["outer.iterations=3", "evaluation.tasks=2", "evaluation.episodes_per_task=2"]
    settings += ["method.hidden_size=8", "method.normalize_rewards=true", "method.minibatches=4"]
    command = ["train", "point_navigation_rl2", *(f"--set={setting}" for setting in settings)]
    single, two = (train(n, tmp_path, *command).load() for n in (1, 2))
    for name, leaf in single.params.items():
        torch.testing.assert_close(two.params[name], leaf, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "examples"), [("sinusoid", 20), ("sinusoid_reptile", 60)])
def test_two_processes_train_sinusoids_like_a_single_one(
    tmp_path: Path, config: str, examples: int
) -> None:
    tiny = ["--set=outer.iterations=20", "--set=outer.meta_batch=5", "--set=evaluation.tasks=5"]
    single, two = (train(n, tmp_path, "train", config, *tiny).load() for n in (1, 2))
    assert single.samples == two.samples == 20 * 5 * examples
    for name, leaf in single.params.items():
        torch.testing.assert_close(two.params[name], leaf, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_more_processes_than_tasks_are_refused(tmp_path: Path) -> None:
    command = [
        "train",
        "point_navigation_small",
        *TINY,
        "--set=outer.meta_batch=1",
        "--out",
        str(tmp_path / "x"),
    ]
    result = subprocess.run(
        torchrun(2, tmp_path / "logs", *command), capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "2 processes cannot share outer.meta_batch=1" in result.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_training_continues_after_a_process_is_restarted(tmp_path: Path) -> None:
    out = tmp_path / "run"
    logs = tmp_path / "logs"
    command = torchrun(
        2, logs, "train", "point_navigation_small", *TINY, "--set=outer.iterations=40"
    )
    restarts = command.index("--standalone") + 1
    command[restarts:restarts] = ["--max-restarts=1", "--monitor-interval=0.1"]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 300  # a busy machine starts slowly
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    run = Run.open(out)
    assert run.load().iteration == 40
    assert [line["iteration"] for line in run.metrics()] == list(range(1, 41))


def test_the_shards_of_all_processes_cover_the_tasks(monkeypatch) -> None:
    for world in (1, 2, 3, 4):
        monkeypatch.setattr("metarl.distributed.world_size", lambda world=world: world)
        tasks = []
        for rank in range(world):
            monkeypatch.setattr("metarl.distributed.rank", lambda rank=rank: rank)
            shard_tasks = list(range(7))[shard(7)]
            assert shard_tasks
            tasks += shard_tasks
        assert tasks == list(range(7))
