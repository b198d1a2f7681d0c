"""Training of one run: its start, its loop with checkpoints and metrics, and its evaluation."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from metarl import distributed
from metarl.config.files import CONFIG
from metarl.config.sections import Experiment, InitialWeights
from metarl.errors import UserError
from metarl.experiment import (
    AnyConfig,
    dump_config,
    extended_config,
    load_config,
    override_config,
)
from metarl.launch.initial_weights import initial_state, prepare
from metarl.launch.signals import StopRequest
from metarl.method import (
    Method,
    Metrics,
    TrainingState,
    at_iteration,
    is_stopped_early,
    load_method,
)
from metarl.method import train as iterations
from metarl.progress import Progress, show_status
from metarl.report.evaluations import evaluate, is_complete, load_checked_state
from metarl.rl.problem import PolicyProblem
from metarl.runs.metrics import Log, MetricsLog, progress_text
from metarl.runs.run import Run
from metarl.threads import under_torchrun

CHECKPOINT_MINUTES = 5.0  # the longest time between checkpoints, whatever `checkpoint_every` is

# called after every iteration, with its metrics if they are reported; only False stops training
Callback = Callable[[TrainingState, Metrics], bool | None]
ConfigLike = str | Path | Mapping[str, Any] | AnyConfig


@dataclass(frozen=True)
class Session:
    """A run that is locked for training, its method, and the state to continue from."""

    run: Run
    method: Method
    state: TrainingState


def as_config(config: ConfigLike, overrides: Sequence[str] = ()) -> AnyConfig:
    """The experiment that a config describes, with settings such as `inner.step_size=0.2` changed.

    Raises:
        UserError: if the config is invalid.
    """
    if isinstance(config, str | Path):
        return load_config(str(config), overrides)
    if isinstance(config, Mapping):
        return extended_config(config, Path("the config"), overrides, "the config")
    if not isinstance(config, Experiment):
        raise UserError(
            "a config is a Config, a mapping, a YAML file or a name from `metarl list`, not "
            f"{config!r}"
        )
    return override_config(config.model_dump(mode="json"), overrides) if overrides else config


def train(
    config: ConfigLike,
    path: Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    init_from: str = "",
    console: Console | None = None,
) -> Run:
    """Meta-train a run and evaluate it; see `metarl.train`."""
    if under_torchrun():
        raise UserError(
            "metarl.train is a training in one process; under torchrun, start the command: "
            "torchrun --nproc-per-node 4 -m metarl train CONFIG"
        )
    if (path / CONFIG).exists() and not resume:
        raise UserError(f"{path} already holds a run; use resume=True to continue it")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UserError(f"callbacks: must be a list of functions, not {callbacks!r}")
    if torch.get_default_dtype() is not torch.float32:
        raise UserError(
            f"torch's default dtype is {torch.get_default_dtype()}, and training is in "
            "torch.float32: call torch.set_default_dtype(torch.float32)"
        )
    experiment = as_config(config)
    if init_from:
        source = InitialWeights(run=init_from)
        experiment = experiment.model_copy(update={"init_from": source})
    with start_run(experiment, path, exist_ok=resume) as session:
        run, method, state = session.run, session.method, session.state
        if not run.has_checkpoint():
            run.save(state, method.problem.data_hashes)
        console = console or Console(quiet=True, force_terminal=False)
        with show_progress(console, method, state) as show:
            train_loop(run, method, state, [*callbacks, show])
        if not is_complete(run, method):
            with show_status(console, f"evaluating {run.path}"):
                evaluate(run, method)
    return run


@contextmanager
def show_progress(console: Console, method: Method, state: TrainingState) -> Iterator[Callback]:
    """A callback of `train_loop` that shows the progress of a training from a state on."""
    with Progress(console) as progress:
        task = progress.add_task(method.label, method.num_iterations, state.iteration)

        def show(state: TrainingState, metrics: Metrics) -> None:
            if metrics:
                task.update(state.iteration, progress_text(metrics, method.problem.metric.name))

        yield show


@contextmanager
def start_run(
    config: AnyConfig, path: Path, *, exist_ok: bool = False, model: Path | None = None
) -> Iterator[Session]:
    """Create a run and lock it; everything is checked before anything is written.

    `exist_ok` continues a run that is there already. `model` is a saved model of stable-baselines3
    that takes the place of training.

    Raises:
        UserError: if the config, the data, the directory or the model is invalid.
    """
    run = Run.reopen(path, config) if exist_ok and (path / CONFIG).exists() else None
    config = prepare(run.config if run else config)
    method = load_method(config)
    _check_num_processes(method)
    check(method)

    def first_state() -> TrainingState:
        return _import_model(method, model) if model else initial_state(method)

    is_new, state = run is None, None
    if run is None:
        # before the directory exists: weights that do not fit leave nothing behind
        state, run = first_state(), Run.create(path, config)
    with run.locked():  # read with the lock: another process may have trained it until now
        state = resume_state(run, method) or state or first_state()
        if not is_new:  # the first checkpoint writes that of a new run
            run.save_config()
        yield Session(run, method, state)


@contextmanager
def resume_run(
    path: Path, overrides: Sequence[str] = (), source: str | None = None, trust_code: bool = False
) -> Iterator[Session]:
    """Open a run that is not complete, and lock it.

    `overrides` such as `outer.iterations=500`, and the settings of the config `source`, replace
    those of the run, if they may change.

    Raises:
        UserError: if there is no such run, it is complete, or a setting must not change.
    """
    run = Run.open(path, tuple(overrides), trust_code)
    if run.results != run.path:  # of the package, or in the cache of the hub
        raise UserError(
            f"{path} is a read-only run of the package; copy {run.path}, and resume the copy"
        )
    if source:
        run.reconfigure(load_config(source, [*overrides, f"method={run.config.method.name}"]))
    method = load_method(run.config)
    _check_num_processes(method)
    check(method)
    with run.locked():
        state = resume_state(run, method) or initial_state(method)
        if is_complete(run, method):
            longer = 2 * run.config.outer.iterations  # an iteration may have several updates
            fix = f"; to train for longer add --iterations {longer}"
            if method.uses_lr_schedule or is_stopped_early(method, state):  # it has ended
                fix = (
                    f"; to train on with a new schedule: metarl train {run.path / CONFIG} --from "
                    f"{run.path} --out NEW_DIRECTORY"
                )
            raise UserError(
                f"the run in {run.path} is complete ({state.iteration} updates)"
                + fix * bool(method.num_iterations)
            )
        run.save_config()  # with the overrides: a further --resume needs none of them
        yield Session(run, method, state)


def follow() -> None:
    """Take part in a training that process 0 leads, and write nothing."""
    start: tuple[AnyConfig, TrainingState] = distributed.broadcast(None)
    config, state = start
    method = load_method(config)
    method.initial_state()  # a custom network of few-shot learning takes its buffers from it
    # outer steps are the same in all processes, so that no state has to be sent again
    for _ in iterations(method, state):
        pass


def check(method: Method) -> None:
    """Check whether a method can train: its early stopping, and the problem in every stage.

    Raises:
        UserError: if it cannot, or see `Problem.check`.
    """
    config = method.problem.config
    if config.early_stopping and not hasattr(method, "validation_score"):
        raise UserError(
            f"early_stopping: method {config.method.name} has no `validation_score` to stop by"
        )
    for start in config.stage_starts:
        at_iteration(method, start).problem.check()


def _check_num_processes(method: Method) -> None:
    """Raise UserError if there are more processes than a training can use."""
    processes = distributed.world_size()
    config = method.problem.config
    meta_batch = min(config.at(start).outer.meta_batch for start in config.stage_starts)
    if processes > 1 and not method.supports_distributed:
        raise UserError(f"{method.label} trains in one process; start it without torchrun")
    if processes > meta_batch:
        raise UserError(
            f"{processes} processes cannot share outer.meta_batch={meta_batch} tasks; "
            "raise it, or start fewer processes"
        )


def _import_model(method: Method, path: Path) -> TrainingState:
    """The final state of a training whose policy is a model of stable-baselines3."""
    if not isinstance(method.problem, PolicyProblem) or not method.num_iterations:
        raise UserError("--model is for a policy that is trained, such as --kind pretrained")
    # imported here, because supervised learning works without stable-baselines3
    from metarl.baselines.stable_baselines import load_model

    _, scale = method.problem.unscaled_family_and_scale
    params, steps = load_model(path, method.problem.policy, scale)
    return TrainingState(method.num_iterations, params, samples=steps)


def resume_state(run: Run, method: Method) -> TrainingState | None:
    """The state of a locked run's checkpoint, if there is one.

    Temporary files of a killed process are removed.

    Raises:
        UserError: if the checkpoint is damaged, the data have changed, or the settings of
            validations.
    """
    run.remove_temp_files()
    if not run.has_checkpoint():
        return None
    run.check_data_hashes(method.problem.data_hashes)
    run.check_validations()
    return load_checked_state(run, method)


def train_loop(
    run: Run,
    method: Method,
    state: TrainingState,
    callbacks: Sequence[Callback] = (),
    logs: Sequence[Log] = (),
    stop: StopRequest | None = None,
) -> TrainingState:
    """Train a locked run that has a checkpoint; write metrics and checkpoints.

    Callbacks are called after every iteration, once its metrics are written; training stops if one
    returns False. `logs` are further destinations of metrics, which are closed at the end. The last
    state is returned, and it is saved even if an exception ends the training.
    """
    stop = stop or StopRequest()
    metric = method.problem.metric.name
    # metrics after the checkpoint are of a killed process, and will be written again
    logs = [MetricsLog(run.path, state.iteration, metric, dump_config(run.config)), *logs]
    saved, saved_at = state, time.monotonic()
    training = iterations(method, state)
    record_every = getattr(run.config, "record_every", None) or 0
    # imported for those who use it: with it comes imageio
    recorder = import_module("metarl.launch.recording").VideoRecorder(run) if record_every else None
    try:
        while not stop.requested:
            # an iteration may be interrupted, since the state before it is whole; writing may not
            with stop.interruptible():
                result = next(training, None)
            if result is None:
                break
            new, metrics = result
            if metrics:
                for log in logs:
                    log.write(new.iteration, metrics)
            state = new  # after its metrics: if they cannot be written, the iteration is repeated
            if recorder and state.iteration % record_every == 0:
                video = recorder.record(state)
                for log in logs if video else ():
                    log.write_video(state.iteration, video)
            # a list: every callback is called, also after one that stops the training
            results = [callback(state, metrics) for callback in callbacks]
            # by its type: 0 is equal to False, and an array has no truth value
            is_stopped = any(isinstance(x, bool | np.bool_) and not x for x in results)
            # by time too, since `checkpoint_every` slow iterations may take hours
            overdue = time.monotonic() - saved_at > 60.0 * CHECKPOINT_MINUTES
            if overdue or state.iteration % run.config.checkpoint_every == 0:
                run.save(state, method.problem.data_hashes)
                saved, saved_at = state, time.monotonic()
            if is_stopped:
                break
    finally:
        try:  # logs are closed even if the disk is full
            if state is not saved:
                run.save(state, method.problem.data_hashes)
        finally:
            for log in logs:
                log.close()
    return state
