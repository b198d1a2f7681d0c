"""`metarl train` and `metarl baseline`."""

import argparse
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from metarl import distributed
from metarl.cli import evaluate
from metarl.cli.arguments import Commands, add_data, add_set, add_trust, declare
from metarl.errors import UserError
from metarl.evaluation import short
from metarl.method import Method, Metrics, TrainingState, load_method, train
from metarl.rl.config import METHODS as RL_METHODS
from metarl.rl.problem import PolicyProblem
from metarl.runs.config import AnyConfig, load_config, shipped_configs
from metarl.runs.metrics import MetricsLog
from metarl.runs.results import fitting_state
from metarl.runs.run import Run
from metarl.supervised.config import METHODS as SUPERVISED_METHODS

KINDS = list(dict.fromkeys([*RL_METHODS, *SUPERVISED_METHODS]))
INTERRUPTED = 130  # what shells report after Ctrl-C
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHECKPOINT_MINUTES = 5.0  # what a power cut may cost, however seldom iterations are saved

RUNS = """
A run is a directory with the whole config, the weights (safetensors), metrics (JSON lines and
TensorBoard), and the evaluation. Ctrl-C saves and stops; --resume continues so that the result
is bit for bit that of an uninterrupted run."""

TRAIN = f"""\
Meta-train a policy or a network from a config: a YAML file, or the name of one that comes with the
package (`metarl list`). At the end it is evaluated on tasks it never saw.

The config's `method` says how, with its own settings (`method: {{name: …, …}}`):
  policies     {", ".join(RL_METHODS)}
  networks     {", ".join(SUPERVISED_METHODS)}
  your own     package.module:Class, see CONTRIBUTING.md
{RUNS}"""

TRAIN_EXAMPLES = """\
examples:
  metarl train quickstart
  metarl train point_navigation --set seed=2 --out runs/point-2
  metarl train omniglot_5way_1shot --data data
  metarl train half_cheetah_direction --set family.settings.dynamics=gymnasium
  metarl train --resume runs/point-2
  metarl train --resume runs/point-2 --set outer.iterations=500    (train for longer)
  torchrun --nproc-per-node 4 -m metarl train ant_goal             (share the tasks)
"""

BASELINE = f"""\
Train what meta-learning is to be compared with: the same network, the same tasks, the same budget
of environment steps or examples, the same evaluation.

  pretrained          one model for all tasks mixed, fine-tuned on new tasks: a policy by PPO of
                      stable-baselines3, one network for all waves, a classifier of all classes
  random              no training at all; fine-tuned on new tasks
  oracle              as pretrained, but it is told the task; not fine-tuned; not of images
  nearest_neighbour   of images alone: the class of the most similar support image, by the features
                      of a classifier of all classes

The step size of fine-tuning is the best of `baseline.step_sizes` on validation tasks. Give the
config, the seed and the settings of the run that is to be compared.
{RUNS}"""

BASELINE_EXAMPLES = """\
examples:
  metarl baseline quickstart --kind pretrained
  metarl baseline point_navigation --kind oracle --set seed=2 --out runs/oracle-2
  metarl baseline half_cheetah_direction --kind pretrained --model my_ppo.zip
  metarl baseline omniglot_5way_1shot --kind nearest_neighbour --data data
  metarl baseline --resume runs/oracle-2
"""


def add_commands(commands: Commands) -> None:
    """Declare both commands."""
    summary = "meta-train from a config"
    parser = declare(commands, "train", summary, TRAIN, TRAIN_EXAMPLES, _train)
    parser.set_defaults(kind=None, model=None)
    _add_arguments(parser)
    summary = "train what meta-learning is compared with"
    parser = declare(commands, "baseline", summary, BASELINE, BASELINE_EXAMPLES, _train)
    _add_arguments(parser)
    parser.add_argument("--kind", choices=KINDS, help="which baseline")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="ZIP",
        help="take a model that stable-baselines3 saved (PPO or A2C) instead of training one",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or a name from `metarl list`"
    )
    add_set(parser, "SECTION.SETTING=VALUE", "change a setting of the config")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="directory of the run (default: runs/NAME)"
    )
    add_data(parser)
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in RUN")
    add_trust(parser)


def _train(options: argparse.Namespace, console: Console) -> int:
    stop = _Stop()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        with ExitStack() as held:
            with stop.at_once():
                held.enter_context(distributed.process_group())
            if distributed.rank() == 0:
                return _lead(options, console, stop, held)
            return _follow(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stop:
    """Ctrl-C, a kind kill, or a terminal that went away.

    Where nothing can be lost it stops what is going on by KeyboardInterrupt, and once: what cleans
    up then is left in peace, whatever signals follow. Anywhere else, as while a checkpoint is
    written, and where Python ignores an exception, as within a finaliser, it is remembered.
    """

    asked = False
    _strikes = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._strikes:
            self._strikes = False
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where a signal, or one that came before, is answered by KeyboardInterrupt."""
        try:
            self._strikes = True
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._strikes = False


def _follow(stop: _Stop) -> int:
    """Take part in what the first process leads, and write nothing."""
    with stop.at_once():
        start: tuple[AnyConfig, TrainingState] = distributed.broadcast(None)
        config, state = start
        for _ in train(load_method(config), state):
            pass
    return 0


def _lead(options: argparse.Namespace, console: Console, stop: _Stop, held: ExitStack) -> int:
    with stop.at_once():
        run, method, state = _prepare(options, held)
    config = run.config
    if not run.has_checkpoint():
        run.save(state, method.problem.data_hashes)
    with stop.at_once():
        distributed.broadcast((config, state))
    console.print(f"run directory: {run.path}", highlight=False, soft_wrap=True)
    log = MetricsLog(run.path, state.iteration)
    saved, saved_at = state, time.monotonic()
    try:
        with _progress(console) as progress:
            bar = progress.add_task(
                method.label,
                total=method.updates,
                completed=state.iteration,
                score="",
            )
            training = train(method, state)
            while not stop.asked:
                with stop.at_once():
                    following = next(training, None)
                if following is None:
                    break
                state, metrics = following
                if metrics:
                    log.write(state.iteration, metrics)
                    score = _progress_of(method, metrics)
                    progress.update(bar, completed=state.iteration, score=score)
                late = time.monotonic() - saved_at > 60.0 * CHECKPOINT_MINUTES
                if late or state.iteration % config.checkpoint_every == 0:
                    run.save(state, method.problem.data_hashes)
                    saved, saved_at = state, time.monotonic()
    except KeyboardInterrupt:
        stop.asked = True  # within an iteration, which is given up
    finally:
        # whatever ended it, the last sound state is kept
        try:
            if state is not saved:
                run.save(state, method.problem.data_hashes)
        finally:
            log.close()
    if stop.asked and state.iteration < method.updates:
        console.print(
            f"stopped after {state.iteration} of {method.updates} updates; continue with: "
            f"metarl {options.name} --resume {run.path}",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    try:
        with stop.at_once():
            evaluate.report(run, method, console)
    except KeyboardInterrupt:
        console.print(
            f"trained, and not evaluated; do that with: metarl {options.name} --resume {run.path}",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    return 0


def _prepare(options: argparse.Namespace, held: ExitStack) -> tuple[Run, Method, TrainingState]:
    """The run to work on, what it is about, and its state: all that can be wrong is found here.

    Args:
        options: of the command line.
        held: is given the lock on the run, to be held until it ends.
    """
    if options.resume:
        return _resume(options, held)
    if not options.config:
        raise UserError(
            f"name a config: a YAML file, or one of {', '.join(shipped_configs())}; or --resume RUN"
        )
    overrides: Sequence[str] = options.set
    if options.name == "baseline":
        if options.kind is None:
            raise UserError(f"say which baseline: --kind {', --kind '.join(KINDS)}")
        overrides = [*overrides, f"method={options.kind}"]
    config = load_config(options.config, overrides)
    method = load_method(config)
    config = method.problem.config
    _check_processes(method)
    method.problem.check()
    model: Path | None = options.model
    state = _imported(method, model) if model else method.initial_state()
    suffix = f"-{options.kind}" if options.kind else ""
    path = options.out or Path("runs") / (Path(options.config).stem + suffix)
    if distributed.restarted() and (path / "config.yaml").exists():
        run = Run(path, config)
        held.enter_context(run.locked())
        return run, method, _saved(run, method, state)
    run = Run.create(path, config)
    held.enter_context(run.locked())
    run.remove_leftovers()
    return run, method, state


def _check_processes(method: Method) -> None:
    """Refuse more processes than a training can use."""
    processes = distributed.world_size()
    meta_batch = method.problem.config.outer.meta_batch
    if processes > 1 and not method.distributes:
        raise UserError(f"{method.label} trains in one process; start it without torchrun")
    if processes > meta_batch:
        raise UserError(
            f"{processes} processes cannot share outer.meta_batch={meta_batch} tasks; "
            "raise it, or start fewer processes"
        )


def _saved(run: Run, method: Method, initial: TrainingState) -> TrainingState:
    """Where a run goes on, and what its process left behind when it was killed removed."""
    run.remove_leftovers()
    if not run.has_checkpoint():
        return initial
    run.check_data_hashes(method.problem.data_hashes)
    return fitting_state(run, method)


def _resume(options: argparse.Namespace, held: ExitStack) -> tuple[Run, Method, TrainingState]:
    for flag in ("out", "kind", "model"):
        if getattr(options, flag):
            raise UserError(
                f"--{flag} and --resume contradict each other; a resumed run stays what and where "
                "it is"
            )
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
    state = _saved(run, method, method.initial_state())
    # a run that was stopped between its last update and its evaluation has that left to do
    if state.iteration >= method.updates and (run.path / "evaluation.json").exists():
        longer = f"; to train for longer add --set outer.iterations={2 * state.iteration}"
        raise UserError(
            f"the run in {run.path} is complete ({state.iteration} updates)"
            f"{longer if method.updates else ''}"
        )
    run.save_config()
    return run, method, state


def _imported(method: Method, path: Path) -> TrainingState:
    """The state of a run that somebody else's model is the end of."""
    if not isinstance(method.problem, PolicyProblem) or not method.updates:
        raise UserError("--model is for a policy that is trained, such as --kind pretrained")
    # imported here: stable-baselines3 takes a second, which nobody else should wait for
    from metarl.baselines.stable_baselines import load_model

    _, scale = method.problem.observed
    params, steps = load_model(path, method.problem.policy, scale)
    return TrainingState(method.updates, params, samples=steps)


def _progress_of(method: Method, metrics: Metrics) -> str:
    """The loss where there is one, and the scores before and after adaptation."""
    metric = method.problem.metric.name
    said = [f"loss {metrics['loss']:.3g}"] if "loss" in metrics else []
    scores = [value for name, value in metrics.items() if name.startswith(f"{metric}/")]
    if scores:
        ends = scores[:1] + scores[1:][-1:]
        said.append(f"{metric} {' → adapted '.join(short(score) for score in ends)}")
    return ", ".join(said)


def _progress(console: Console) -> Progress:
    def fixed() -> Column:
        return Column(no_wrap=True)

    return Progress(
        TextColumn("{task.description}", table_column=fixed()),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=fixed()),
        TimeElapsedColumn(table_column=fixed()),
        TextColumn("ETA", table_column=fixed()),
        TimeRemainingColumn(compact=True, table_column=fixed()),
        TextColumn("{task.fields[score]}", table_column=fixed()),
        console=console,
        expand=True,
    )
