"""A training, from the first iteration or from where it stopped to its evaluation."""

import argparse
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from metarl import distributed
from metarl.cli.evaluation_output import evaluate_and_print
from metarl.cli.signals import INTERRUPTED, Stop, stopping
from metarl.errors import UserError
from metarl.experiment import AnyConfig, load_config
from metarl.launch.train import keep_training, taken_up
from metarl.launch.weights_and_biases import WandbLog
from metarl.method import Method, Metrics, TrainingState, load_method, train
from metarl.parallel import keep_freed_memory
from metarl.progress import Progress
from metarl.report.evaluations import is_complete
from metarl.rl.problem import PolicyProblem
from metarl.runs.metrics import Log, progress_text
from metarl.runs.run import Run


def train_one(options: argparse.Namespace, config: AnyConfig | None, console: Console) -> int:
    """Train one run, or take part in it where torchrun started several processes.

    Args:
        options: of the command line.
        config: what to train; None where a run is resumed, or another process leads.
        console: where to tell of it.

    Returns:
        The exit status.
    """
    keep_freed_memory()
    with stopping() as stop, ExitStack() as held:
        with stop.at_once():
            held.enter_context(distributed.process_group())
        if distributed.rank() == 0:
            return _lead(options, config, console, stop, held)
        return _follow(stop)


def _follow(stop: Stop) -> int:
    """Take part in what the first process is_main_process, and write nothing."""
    with stop.at_once():
        start: tuple[AnyConfig, TrainingState] = distributed.broadcast(None)
        config, state = start
        for _ in train(load_method(config), state):
            pass
    return 0


def _lead(
    options: argparse.Namespace,
    given: AnyConfig | None,
    console: Console,
    stop: Stop,
    held: ExitStack,
) -> int:
    with stop.at_once():
        run, method, state = _prepare(options, given, held)
        config, metric = run.config, method.problem.metric.name
        logs: list[Log] = [WandbLog(options.wandb, run)] if options.wandb else []
    if not run.has_checkpoint():
        run.save(state, method.problem.data_hashes)
    with stop.at_once():
        distributed.broadcast((config, state))
    console.print(f"run directory: {run.path}", highlight=False, soft_wrap=True)
    try:
        with Progress(console) as progress:
            task = progress.add(method.label, method.num_iterations, state.iteration)

            def report(iteration: int, metrics: Metrics) -> None:
                task.update(iteration, progress_text(metrics, metric))

            state = keep_training(run, method, state, report, logs, stop)
    except KeyboardInterrupt:
        stop.asked = True  # within an iteration, which is given up
        state = run.load()
    if stop.asked and state.iteration < method.num_iterations:
        console.print(
            f"stopped after {state.iteration} of {method.num_iterations} updates; continue with: "
            f"metarl {options.name} --resume {run.path}",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    try:
        with stop.at_once():
            evaluate_and_print(run, method, console)
    except KeyboardInterrupt:
        console.print(
            f"trained, and not evaluated; do that with: metarl {options.name} --resume {run.path}",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    return 0


def _prepare(
    options: argparse.Namespace, config: AnyConfig | None, held: ExitStack
) -> tuple[Run, Method, TrainingState]:
    """The run to work on, what it is about, and its state: all that can be wrong is found here.

    Args:
        options: of the command line.
        config: what to train; None where a run is resumed.
        held: is given the lock on the run, to be held until it ends.
    """
    if config is None:
        return _resume(options, held)
    method = load_method(config)
    config = method.problem.config  # with what is measured
    _check_processes(method)
    method.problem.check()
    model: Path | None = options.model
    state = _imported(method, model) if model else method.initial_state()
    path: Path = options.out
    if distributed.restarted() and (path / "config.yaml").exists():
        run = Run(path, config)
        held.enter_context(run.locked())
        return run, method, taken_up(run, method, state)
    run = Run.create(path, config)
    held.enter_context(run.locked())
    run.remove_temp_files()
    return run, method, state


def _check_processes(method: Method) -> None:
    """Refuse more processes than a training can use."""
    processes = distributed.world_size()
    meta_batch = method.problem.config.outer.meta_batch
    if processes > 1 and not method.supports_distributed:
        raise UserError(f"{method.label} trains in one process; start it without torchrun")
    if processes > meta_batch:
        raise UserError(
            f"{processes} processes cannot share outer.meta_batch={meta_batch} tasks; "
            "raise it, or start fewer processes"
        )


def _resume(options: argparse.Namespace, held: ExitStack) -> tuple[Run, Method, TrainingState]:
    run = Run.open(options.resume, tuple(options.set), options.trust_code)
    if run.results != run.path:
        raise UserError(
            f"{options.resume} comes with the package, and is not to be trained on; copy it from "
            f"{run.path}, and resume the copy"
        )
    if options.config:
        config = load_config(options.config, [*options.set, f"method={run.config.method.name}"])
        run.reconfigure(config)
    method = load_method(run.config)
    _check_processes(method)
    method.problem.check()
    held.enter_context(run.locked())
    state = taken_up(run, method, method.initial_state())
    if is_complete(run, method):
        longer = f"; to train for longer add --set outer.iterations={2 * state.iteration}"
        raise UserError(
            f"the run in {run.path} is is_complete ({state.iteration} updates)"
            f"{longer if method.num_iterations else ''}"
        )
    run.save_config()
    return run, method, state


def _imported(method: Method, path: Path) -> TrainingState:
    """The state of a run that somebody else's model is the end of."""
    if not isinstance(method.problem, PolicyProblem) or not method.num_iterations:
        raise UserError("--model is for a policy that is trained, such as --kind pretrained")
    # imported here: stable-baselines3 takes a second, which nobody else should wait for
    from metarl.baselines.stable_baselines import load_model

    _, scale = method.problem.unscaled_family_and_scale
    params, steps = load_model(path, method.problem.policy, scale)
    return TrainingState(method.num_iterations, params, samples=steps)
