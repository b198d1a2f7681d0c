"""Trains several runs in parallel: one process with one thread each, as many as processors.

The output of a process goes into a file of its run. A failing process does not affect the others.
When they are stopped, each saves its state.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.progress import Progress, Task
from metarl.runs.metrics import last_metrics, progress_text
from metarl.threads import THREADS_VARIABLE, processors

# torch, numpy and MuJoCo read different variables
THREAD_VARIABLES = (THREADS_VARIABLE, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")
TRAIN = (sys.executable, "-m", "metarl", "train")
LOG = "training.log"  # in a run directory
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """A run to train to its last iteration."""

    name: str  # for messages
    run: Path  # the run directory
    num_iterations: int
    metric: str  # the name of the training scores
    arguments: Sequence[str]  # of `metarl train`

    @property
    def log(self) -> Path:
        """The file for the output of its process."""
        return self.run / LOG


@dataclass(frozen=True)
class _Running:
    """The process of a job."""

    process: subprocess.Popen[bytes]
    task: Task
    log_start: int  # the size of the log before; what precedes it is of earlier processes


def run_jobs(
    jobs: Sequence[Job],
    should_stop: Callable[[], bool],
    on_failure: Callable[[Job, str], None],
    progress: Progress,
    should_prune: Callable[[Job], bool] = lambda job: False,
) -> dict[Job, int]:
    """Run jobs in processes of their own, in this order; return the exit status of those started.

    `should_stop` is called several times per second; once it returns True, all processes are asked
    to stop, and no other starts. `should_prune` is called when a job has new metrics; once it
    returns True, the job is asked to stop. `on_failure` receives a job that failed by itself, or
    could not be started, and its last message or the reason.
    """
    waiting, running = list(jobs), dict[Job, _Running]()
    statuses: dict[Job, int] = {}
    stopped, pruned, iterations = False, set[Job](), dict[Job, float]()
    try:
        while running or (waiting and not stopped):
            while waiting and not stopped and len(running) < processors():
                job = waiting.pop(0)
                before = last_metrics(job.run) or {}  # a resumed run does not begin at 0
                task = progress.add_task(
                    job.name, job.num_iterations, int(before.get("iteration", 0))
                )
                try:
                    running[job] = _start(job, task)
                except OSError as error:  # its directory was deleted, or the disk is full
                    task.finish()
                    on_failure(job, f"its process could not be started: {error}")
            # processes report their progress in their metrics files only
            time.sleep(POLL_SECONDS)
            if should_stop() and not stopped:
                stopped = True
                _terminate(running.values())
            for job, child in list(running.items()):
                if metrics := last_metrics(job.run):
                    child.task.update(int(metrics["iteration"]), progress_text(metrics, job.metric))
                    is_new = metrics["iteration"] != iterations.get(job)
                    iterations[job] = metrics["iteration"]
                    if is_new and job not in pruned and not stopped and should_prune(job):
                        pruned.add(job)
                        _terminate([child])
                if (status := child.process.poll()) is not None:
                    del running[job]
                    child.task.finish()
                    statuses[job] = status
                    if status and not stopped and job not in pruned:
                        on_failure(job, _reason(job, child, status))
    finally:
        # after an exception, no process trains on unnoticed
        _terminate(running.values())
        for child in running.values():
            child.process.wait()
    return statuses


def _start(job: Job, task: Task) -> _Running:
    with job.log.open("ab") as log:  # appended to, so that a resumed run keeps its history
        log_start = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [*TRAIN, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
            # in its own session, so that Ctrl-C reaches it only through `run_jobs`
            start_new_session=True,
        )
    return _Running(process, task, log_start)


def _terminate(children: Iterable[_Running]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)


def _reason(job: Job, child: _Running, status: int) -> str:
    """Why a process failed: the signal that ended it, or its last message."""
    if status < 0:
        return f"its process was ended by signal {-status} ({signal.strsignal(-status)})"
    try:
        output = job.log.read_bytes()[child.log_start :]
    except OSError as error:
        return f"its output could not be read: {error}"
    return _last_message(output.decode(errors="replace"))


def _last_message(output: str) -> str:
    """The last error message in the output of a process, or else its last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    # an error of the command line may have several lines, the first of which has the prefix
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("metarl: "):
            return " ".join([lines[number].removeprefix("metarl: "), *lines[number + 1 :]])
    return lines[-1] if lines else "there is no output"
