"""`metarl train` and `metarl baseline`."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from metarl import distributed
from metarl.cli.arguments import missing_config_error, overrides_of, seeds_of
from metarl.cli.output import compare_runs, evaluate_and_print, print_comparison
from metarl.config.files import CONFIG, resolve_run_dir
from metarl.errors import UserError
from metarl.experiment import AnyConfig, load_config
from metarl.launch.several import LaunchOptions, train_seeds
from metarl.launch.signals import INTERRUPTED, StopRequest, stop_on_signals
from metarl.launch.train import Session, follow, resume_run, show_progress, start_run, train_loop
from metarl.launch.weights_and_biases import WandbLog, require_wandb
from metarl.method import is_stopped_early, is_trained
from metarl.parallel import device_note, keep_freed_memory
from metarl.progress import print_line
from metarl.runs.hub import PREFIX
from metarl.runs.metrics import Log
from metarl.threads import is_main_process


def run(options: argparse.Namespace, console: Console) -> int:
    if options.wandb:  # a missing package is reported before anything is created
        require_wandb()
    overrides = overrides_of(options)
    if options.seeds and any(override.startswith("seed=") for override in overrides):
        raise UserError("--seeds contradicts the setting seed; use one of them")
    if options.seeds or (options.resume and _has_several_runs(options.resume)):
        return _train_several(options, overrides, console)
    if options.resume:
        _check_resume(options)
    keep_freed_memory()
    if not is_main_process():  # the first process sends the config and the state
        with stop_on_signals() as stop, stop.interruptible(), distributed.process_group():
            follow()
        return 0
    if options.resume:
        start = resume_run(options.resume, overrides, options.config, options.trust_code)
    else:
        config = _load_config(options, overrides)
        # torchrun repeats the command after a failure, when the run is there already
        is_restart = distributed.restarted()
        start = start_run(config, _default_out(options), exist_ok=is_restart, model=options.model)
    with stop_on_signals() as stop, ExitStack() as stack:
        with stop.interruptible():  # nothing is lost before the first checkpoint
            stack.enter_context(distributed.process_group())
            session = stack.enter_context(start)
        return _train_session(session, stop, options, console)


def _train_several(options: argparse.Namespace, overrides: Sequence[str], console: Console) -> int:
    if options.model:
        raise UserError("--model is one run; omit --seeds")
    if options.resume and options.out:
        raise UserError("--out and --resume contradict each other; runs stay where they are")
    seeds = seeds_of(options.seeds)
    if options.resume and not seeds and (options.config or getattr(options, "kind", None)):
        raise UserError(
            f"{options.resume} holds several runs, which continue with their own settings; leave "
            "CONFIG and --kind out, or add --seeds to train more"
        )
    if seeds and options.resume and not options.config:
        raise UserError(f"name the config of {options.resume} as well, to add seeds to it")
    launch = LaunchOptions(
        bool(options.resume), overrides, options.trust_code, options.wandb, console, options.verb
    )
    config = _load_config(options, overrides) if seeds else None
    trained = train_seeds(config, seeds, options.resume or _default_out(options), launch)
    if trained.interrupted:
        return INTERRUPTED
    if trained.runs:
        print_comparison(console, compare_runs(trained.runs, console))
    return 1 if trained.failures else 0


def _train_session(
    session: Session, stop: StopRequest, options: argparse.Namespace, console: Console
) -> int:
    run, method, state = session.run, session.method, session.state
    with stop.interruptible():
        logs: list[Log] = [WandbLog(options.wandb, run)] if options.wandb else []
    # state.json shows that training began: metrics without it are those of a damaged run
    if not run.has_checkpoint():
        run.save(state, method.problem.data_hashes)
    with stop.interruptible():
        distributed.broadcast((run.config, state))
    print_line(console, f"run directory: {run.path}")
    if run.config.device != "cpu":
        print_line(console, device_note(run.config.device))
    resume = f"metarl {options.verb} --resume {run.path}{run.trust_option}"
    try:
        with show_progress(console, method, state) as show:
            state = train_loop(run, method, state, [show], logs, stop)
    except KeyboardInterrupt:  # in an iteration, which is discarded
        stop.requested = True
        state = run.load()
    if is_stopped_early(method, state):
        print_line(console, f"stopped early: no better validation in {state.iteration} iterations")
    if stop.requested and not is_trained(method, state):
        print_line(
            console,
            f"stopped after {state.iteration} of {method.num_iterations} updates; continue with: "
            f"{resume}",
        )
        return INTERRUPTED
    try:
        with stop.interruptible():
            evaluate_and_print(run, method, console)
    except KeyboardInterrupt:
        print_line(console, f"trained, but not evaluated; evaluate with: {resume}")
        return INTERRUPTED
    return 0


def _check_resume(options: argparse.Namespace) -> None:
    """Raise UserError if there is nothing to resume, or an option contradicts it."""
    for flag in ("out", "kind", "model"):
        if getattr(options, flag):
            raise UserError(
                f"--{flag} and --resume contradict each other; a resumed run keeps its directory "
                "and its method"
            )
    is_run = (options.resume / CONFIG).exists()
    if not is_run and any(options.resume.glob(f"*/*/{CONFIG}")):  # one level below those of seeds
        raise UserError(
            f"{options.resume} holds the runs of a sweep; continue them with metarl sweep "
            f"--resume {options.resume}"
        )
    if not str(options.resume).startswith(PREFIX):  # `Run.open` fetches those of the hub
        resolve_run_dir(options.resume)


def _has_several_runs(folder: Path) -> bool:
    """Whether a directory has runs in subdirectories and is not a run itself."""
    return not (folder / CONFIG).exists() and any(folder.glob(f"*/{CONFIG}"))


def _load_config(options: argparse.Namespace, overrides: Sequence[str]) -> AnyConfig:
    if not options.config:
        raise missing_config_error("--resume RUN")
    if options.verb == "baseline" and options.kind is None:
        raise UserError("name a baseline, such as --kind pretrained")
    return load_config(options.config, overrides)


def _default_out(options: argparse.Namespace) -> Path:
    suffix = f"-{options.kind}" if options.kind else ""
    return options.out or Path("runs") / (Path(options.config).stem + suffix)
