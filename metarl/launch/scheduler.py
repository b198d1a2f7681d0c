"""Trainings side by side: a process each, with one thread, as many at once as there are processors.

What a process says goes into a file in its run. One that fails does not take the others along,
and when they are to stop each saves what it has.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.progress import Progress, Task
from metarl.runs.metrics import last_metrics, progress_text
from metarl.threads import THREADS_VARIABLE, processors

# torch, numpy and MuJoCo each have a name of their own for it
NAMES = (THREADS_VARIABLE, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(NAMES, "1")
TRAIN = (sys.executable, "-m", "metarl", "train")
LOG = "training.log"  # in a run's directory
PAUSE = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Job:
    """A run that is to be trained to its end.

    Attributes:
        name: what to call it.
        run: its directory.
        num_iterations: the number of iterations.
        metric: the name of what is seen in training.
        arguments: of `metarl train`.
    """

    name: str
    run: Path
    num_iterations: int
    metric: str
    arguments: Sequence[str]

    @property
    def log(self) -> Path:
        """Where its process writes."""
        return self.run / LOG


def side_by_side(
    jobs: Sequence[Job],
    stop: Callable[[], bool],
    failed: Callable[[Job, str], None],
    progress: Progress,
) -> dict[Job, int]:
    """Train runs, each in a process of its own.

    Args:
        jobs: in the order in which they begin.
        stop: whether to stop all of them; asked several times a second.
        failed: told of each that ends otherwise than well, and what it said last.
        progress: shows how far each is.

    Returns:
        The exit status of those that began. Once they are told to stop no other begins.
    """
    waiting, working = list(jobs), dict[Job, tuple[subprocess.Popen[bytes], Task]]()
    ended: dict[Job, int] = {}
    stopped = False
    try:
        while working or (waiting and not stopped):
            while waiting and not stopped and len(working) < processors():
                job = waiting.pop(0)
                before = last_metrics(job.run) or {}
                task = progress.add(job.name, job.num_iterations, int(before.get("iteration", 0)))
                working[job] = _begin(job), task
            time.sleep(PAUSE)
            if stop() and not stopped:
                stopped = True
                _terminate(working)
            for job, (process, task) in list(working.items()):
                if seen := last_metrics(job.run):
                    task.update(int(seen["iteration"]), progress_text(seen, job.metric))
                if (status := process.poll()) is not None:
                    del working[job]
                    task.end()
                    ended[job] = status
                    if status and not stopped:
                        failed(job, _last_words(job.log))
    finally:
        # whatever went wrong here: nobody trains on without anybody's knowing
        _terminate(working)
        for process, _ in working.values():
            process.wait()
    return ended


def _begin(job: Job) -> subprocess.Popen[bytes]:
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [*TRAIN, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
            # a session of its own: Ctrl-C reaches it once, through `side_by_side`
            start_new_session=True,
        )


def _terminate(working: dict[Job, tuple[subprocess.Popen[bytes], Task]]) -> None:
    for process, _ in working.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def _last_words(log: Path) -> str:
    """What a process said last: its complaint, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("metarl: "):
            return " ".join([lines[number].removeprefix("metarl: "), *lines[number + 1 :]])
    return lines[-1] if lines else "it said nothing"
