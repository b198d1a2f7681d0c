"""Training into a run's directory: what is computed is kept, whatever ends it."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from metarl.errors import UserError
from metarl.experiment import AnyConfig, dump_config
from metarl.method import Method, Metrics, TrainingState, load_method
from metarl.method import train as iterations
from metarl.report.evaluations import evaluate, load_checked_state
from metarl.runs.metrics import Log, MetricsLog
from metarl.runs.run import Run

CHECKPOINT_MINUTES = 5.0  # what a power cut may cost, however seldom iterations are saved

Report = Callable[[int, Metrics], None]


class Stopping(Protocol):
    """How a training is asked to stop."""

    @property
    def asked(self) -> bool:
        """Whether it was, and is to end after the iteration that is going on."""

    def at_once(self) -> AbstractContextManager[None]:
        """Where it may be stopped by KeyboardInterrupt, because nothing can be lost."""


class Unasked:
    """A training that ends by itself, or by an exception."""

    asked = False

    def at_once(self) -> AbstractContextManager[None]:
        """Nothing changes."""
        return nullcontext()


def train(config: AnyConfig, path: Path, resume: bool = False, report: Report | None = None) -> Run:
    """Meta-train, keep what came of it, and evaluate it; see `metarl.train`."""
    method = load_method(config)
    method.problem.check()
    there = (path / "config.yaml").exists()
    if there and not resume:
        raise UserError(f"{path} already holds a run; give resume=True to go on with it")
    state = method.initial_state()  # what is wrong is found before anything is written
    config = method.problem.config  # with what is measured
    run = Run(path, config) if there else Run.create(path, config)
    with run.locked():
        state = taken_up(run, method, state)
        if not run.has_checkpoint():
            run.save(state, method.problem.data_hashes)
        keep_training(run, method, state, report)
        evaluate(run, method)
    return run


def taken_up(run: Run, method: Method, initial: TrainingState) -> TrainingState:
    """Where a run goes on, and what its process left behind when it was killed removed."""
    run.remove_temp_files()
    if not run.has_checkpoint():
        return initial
    run.check_data_hashes(method.problem.data_hashes)
    return load_checked_state(run, method)


def keep_training(
    run: Run,
    method: Method,
    state: TrainingState,
    report: Report | None = None,
    logs: Sequence[Log] = (),
    stop: Stopping | None = None,
) -> TrainingState:
    """Go on with a run that is locked and has a checkpoint; write metrics and checkpoints.

    Args:
        run: where to.
        method: what trains.
        state: where it is.
        report: is told of every iteration that has metrics.
        logs: where metrics go besides; they are closed at the end.
        stop: asks it to stop.

    Returns:
        The last state, which is saved, whatever exception ended it.
    """
    stop = stop or Unasked()
    metric = method.problem.metric.name
    logs = [MetricsLog(run.path, state.iteration, metric, dump_config(run.config)), *logs]
    saved, saved_at = state, time.monotonic()
    training = iterations(method, state)
    try:
        while not stop.asked:
            with stop.at_once():
                following = next(training, None)
            if following is None:
                break
            state, metrics = following
            if metrics:
                for log in logs:
                    log.write(state.iteration, metrics)
                if report:
                    report(state.iteration, metrics)
            late = time.monotonic() - saved_at > 60.0 * CHECKPOINT_MINUTES
            if late or state.iteration % run.config.checkpoint_every == 0:
                run.save(state, method.problem.data_hashes)
                saved, saved_at = state, time.monotonic()
    finally:
        try:
            if state is not saved:
                run.save(state, method.problem.data_hashes)
        finally:
            for log in logs:
                log.close()
    return state
