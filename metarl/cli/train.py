"""`metarl train` and `metarl baseline`."""

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from rich.console import Console

from metarl import distributed
from metarl.cli.arguments import (
    add_config,
    add_data,
    add_seeds,
    add_set,
    add_trust,
    add_wandb,
    missing_config_error,
    seeds_of,
    set_help,
)
from metarl.cli.output import compare_runs, evaluate_and_print, print_comparison, print_line
from metarl.config.files import CONFIG, resolve_run_dir
from metarl.errors import UserError
from metarl.experiment import AnyConfig, load_config
from metarl.launch.several import LaunchOptions, train_seeds
from metarl.launch.signals import INTERRUPTED, StopRequest, stop_on_signals
from metarl.launch.train import Session, follow, resume_run, start_run, train_loop
from metarl.launch.weights_and_biases import WandbLog, require_wandb
from metarl.method import Metrics
from metarl.parallel import keep_freed_memory
from metarl.progress import Progress
from metarl.rl.methods import METHODS as RL_METHODS
from metarl.runs.hub import PREFIX
from metarl.runs.metrics import Log, progress_text
from metarl.supervised.methods import METHODS as SUPERVISED_METHODS
from metarl.threads import is_main_process

KINDS = list(dict.fromkeys([*RL_METHODS, *SUPERVISED_METHODS]))

RUNS = """
A run is a directory with the whole config, the weights (safetensors), metrics (JSON lines and
TensorBoard), and the evaluation. Ctrl-C saves and stops; --resume continues so that the result
is bit for bit that of an uninterrupted run."""

TRAIN = f"""\
Meta-train a policy or a network from a config: a YAML file, or the name of a config of the package
(`metarl list`). After training it is evaluated on held-out tasks.

The config's section `method` names the method and its settings (`method: {{name: …, …}}`):
  policies     {", ".join(RL_METHODS)}
  networks     {", ".join(SUPERVISED_METHODS)}
  your own     package.module:Class, see CONTRIBUTING.md
{RUNS}"""

TRAIN_EXAMPLES = """\
examples:
  metarl train quickstart
  metarl train point_navigation --seed 2 --out runs/point-2
  metarl train point_navigation --seeds 5      1 to 5 in parallel, runs/point_navigation/seed-1 …
  metarl train --resume runs/point_navigation  continue the unfinished ones
  metarl train omniglot_5way_1shot --data data
  metarl train half_cheetah_direction --set family.settings.dynamics=gymnasium
  metarl train --resume runs/point-2
  metarl train --resume runs/point-2 --set outer.iterations=500    (train for longer)
  torchrun --nproc-per-node 4 -m metarl train ant_goal             (distribute the tasks)
"""

BASELINE = f"""\
Train a baseline for meta-learning: the same network, tasks, evaluation, and budget of environment
steps or examples.

  pretrained          one model for all tasks jointly, fine-tuned on new tasks: a policy by PPO of
                      stable-baselines3, one network for all waves, a classifier of all classes
  random              random initialisation, fine-tuned on new tasks
  oracle              as pretrained, but conditioned on the task; not fine-tuned; not for images
  nearest_neighbour   images only: the class of the most similar support image, by the features
                      of a classifier of all classes

The step size of fine-tuning is the best of `baseline.step_sizes` on validation tasks. Use the
config, the seed and the settings of the run to compare with.
{RUNS}"""

BASELINE_EXAMPLES = """\
examples:
  metarl baseline quickstart --kind pretrained
  metarl baseline point_navigation --kind oracle --seed 2 --out runs/oracle-2
  metarl baseline quickstart --kind random --seeds 5
  metarl baseline half_cheetah_direction --kind pretrained --model my_ppo.zip
  metarl baseline omniglot_5way_1shot --kind nearest_neighbour --data data
  metarl baseline --resume runs/oracle-2
"""


def declare_train(parser: argparse.ArgumentParser) -> None:
    """Declare `train`."""
    set_help(parser, TRAIN, TRAIN_EXAMPLES, _train)
    parser.set_defaults(verb="train", kind=None, model=None)
    _add_arguments(parser)


def declare_baseline(parser: argparse.ArgumentParser) -> None:
    """Declare `baseline`."""
    set_help(parser, BASELINE, BASELINE_EXAMPLES, _train)
    parser.set_defaults(verb="baseline")
    _add_arguments(parser)
    parser.add_argument("--kind", choices=KINDS, help="which baseline")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="ZIP",
        help="use a saved stable-baselines3 model (PPO or A2C) instead of training one",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_set(parser, "SECTION.SETTING=VALUE", "change a setting of the config")
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set seed=N")
    add_seeds(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="RUN",
        help="run directory (default: runs/NAME); with --seeds, RUN/seed-N for each seed",
    )
    add_data(parser)
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="continue the run in RUN, or all of its seeds"
    )
    add_wandb(parser)
    add_trust(parser)


def _train(options: argparse.Namespace, console: Console) -> int:
    if options.wandb:
        require_wandb()
    if options.seed is not None and options.seeds:
        raise UserError("--seed and --seeds contradict each other; use one of them")
    overrides = [*options.set, *([] if options.seed is None else [f"seed={options.seed}"])]
    if options.seeds or (options.resume and _has_several_runs(options.resume)):
        return _train_several(options, overrides, console)
    if options.resume:
        _check_resume(options)
    if not is_main_process():
        return _follow()  # the first process sends the config and the state
    if options.resume:
        start = resume_run(options.resume, overrides, options.config, options.trust_code)
    else:
        config = _load_config(options, overrides)
        is_restart = distributed.restarted()
        start = start_run(config, _default_out(options), exist_ok=is_restart, model=options.model)
    return _lead(start, options, console)


def _train_several(options: argparse.Namespace, overrides: Sequence[str], console: Console) -> int:
    if options.model:
        raise UserError("--model is one run; omit --seeds")
    if options.resume and options.out:
        raise UserError("--out and --resume contradict each other; runs stay where they are")
    seeds = seeds_of(options)
    if seeds and options.resume and not options.config:
        raise UserError(f"name the config of {options.resume} as well, to add seeds to it")
    launch = LaunchOptions(
        resume=bool(options.resume),
        overrides=overrides,
        trust_code=options.trust_code,
        wandb=options.wandb,
        console=console,
        verb=options.verb,
    )
    config = _load_config(options, overrides) if seeds else None
    trained = train_seeds(config, seeds, options.resume or _default_out(options), launch)
    if trained.interrupted:
        return INTERRUPTED
    if trained.runs:
        print_comparison(console, compare_runs(trained.runs, console))
    return 1 if trained.failures else 0


def _follow() -> int:
    """Take part in a training that the first process leads."""
    keep_freed_memory()
    with stop_on_signals() as stop, stop.interruptible(), distributed.process_group():
        follow()
    return 0


def _lead(
    start: AbstractContextManager[Session], options: argparse.Namespace, console: Console
) -> int:
    """Train and evaluate one run; `start` opens and locks it."""
    keep_freed_memory()
    with stop_on_signals() as stop, ExitStack() as stack:
        with stop.interruptible():
            stack.enter_context(distributed.process_group())
            session = stack.enter_context(start)
        return _train_session(session, stop, options, console)


def _train_session(
    session: Session, stop: StopRequest, options: argparse.Namespace, console: Console
) -> int:
    run, method, state = session.run, session.method, session.state
    metric = method.problem.metric.name
    with stop.interruptible():
        logs: list[Log] = [WandbLog(options.wandb, run)] if options.wandb else []
    if not run.has_checkpoint():
        run.save(state, method.problem.data_hashes)
    with stop.interruptible():
        distributed.broadcast((run.config, state))
    print_line(console, f"run directory: {run.path}")
    resume = f"metarl {options.verb} --resume {run.path}"
    try:
        with Progress(console) as progress:
            task = progress.add_task(method.label, method.num_iterations, state.iteration)

            def report(iteration: int, metrics: Metrics) -> None:
                task.update(iteration, progress_text(metrics, metric))

            state = train_loop(run, method, state, report, logs, stop)
    except KeyboardInterrupt:  # in an iteration, which is discarded
        stop.requested = True
        state = run.load()
    if stop.requested and state.iteration < method.num_iterations:
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
    if not str(options.resume).startswith(PREFIX):
        resolve_run_dir(options.resume)


def _has_several_runs(folder: Path) -> bool:
    """Whether a directory has runs in subdirectories and is not a run itself."""
    return not (folder / CONFIG).exists() and any(folder.glob(f"*/{CONFIG}"))


def _load_config(options: argparse.Namespace, overrides: Sequence[str]) -> AnyConfig:
    if not options.config:
        raise missing_config_error("--resume RUN")
    if options.verb == "baseline":
        if options.kind is None:
            raise UserError(f"name a baseline: --kind {', --kind '.join(KINDS)}")
        overrides = [*overrides, f"method={options.kind}"]
    return load_config(options.config, overrides)


def _default_out(options: argparse.Namespace) -> Path:
    suffix = f"-{options.kind}" if options.kind else ""
    return options.out or Path("runs") / (Path(options.config).stem + suffix)
