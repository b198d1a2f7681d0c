"""Training into a run's directory, from Python."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from metarl.errors import UserError
from metarl.method import Method, Metrics, TrainingState, load_method
from metarl.method import train as iterations
from metarl.runs.config import AnyConfig
from metarl.runs.metrics import MetricsLog
from metarl.runs.results import fitting_state, measure
from metarl.runs.run import Run

Report = Callable[[int, Metrics], None]


def train(config: AnyConfig, path: Path, resume: bool = False, report: Report | None = None) -> Run:
    """Meta-train, keep what came of it, and evaluate it; see `metarl.train`."""
    method = load_method(config)
    method.problem.check()
    there = (path / "config.yaml").exists()
    if there and not resume:
        raise UserError(f"{path} already holds a run; give resume=True to go on with it")
    state = method.initial_state()  # what is wrong is found before anything is written
    run = Run(path, config) if there else Run.create(path, config)
    with run.locked():
        run.remove_leftovers()
        if run.has_checkpoint():
            run.check_data_hashes(method.problem.data_hashes)
            state = fitting_state(run, method)
        _keep(run, method, state, report)
        measure(run, method)
    return run


def _keep(run: Run, method: Method, state: TrainingState, report: Report | None) -> None:
    saved = None
    with closing(MetricsLog(run.path, state.iteration)) as log:
        try:
            for following, metrics in iterations(method, state):
                state = following
                if metrics:
                    log.write(state.iteration, metrics)
                    if report:
                        report(state.iteration, metrics)
                if state.iteration % run.config.checkpoint_every == 0:
                    run.save(state, method.problem.data_hashes)
                    saved = state
        finally:  # whatever ended it, the last sound state is kept
            if state is not saved:
                run.save(state, method.problem.data_hashes)
