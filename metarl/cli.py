"""The command line."""

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from metarl.config import load_config, shipped_configs
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, evaluate
from metarl.plotting import plot_adaptation
from metarl.run import MetricsLog, Run
from metarl.training import Metrics, TrainingState, initial_state, inner_loop, meta_train

INTERRUPTED = 130  # what shells report after Ctrl-C

DESCRIPTION = """\
Meta-reinforcement learning with MAML (Finn et al., 2017): train a policy that adapts to a
new task within a few gradient steps, and measure how well it does."""

EXAMPLES = """\
examples:
  metarl train quickstart                        a few minutes, into runs/quickstart
  metarl train my.yaml --set inner.step_size=0.2 --out runs/mine
  metarl train --resume runs/mine                continue exactly where it stopped
  metarl evaluate runs/mine                      returns after 0, 1, 2, ... gradient steps
  metarl list                                    the configs that come with the package
  tensorboard --logdir runs                      watch returns, KL, entropy, speed
"""

TRAIN = """\
Meta-train a policy from a config: a YAML file, or the name of one that comes with the package
(`metarl list`). At the end it is evaluated on tasks it never saw.

A run is a directory with the whole config, the weights (safetensors), metrics (JSON lines and
TensorBoard), and the evaluation. Ctrl-C saves and stops; --resume continues so that the result
is bit for bit that of an uninterrupted run."""

TRAIN_EXAMPLES = """\
examples:
  metarl train quickstart
  metarl train point_navigation --set seed=2 --out runs/point-2
  metarl train half_cheetah_direction --set family.settings.dynamics=gymnasium
  metarl train --resume runs/point-2
  metarl train --resume runs/point-2 --set outer.iterations=500    (train for longer)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, 1 where training broke down, 2 for a mistake of the user's, 130 after
        an interruption.
    """
    options = _parser().parse_args(arguments)
    console = Console()
    complain = Console(stderr=True)
    try:
        status: int = options.command(options, console)
        return status
    except UserError as error:
        complain.print(
            f"metarl: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        return 2
    except FloatingPointError as error:
        complain.print(f"metarl: training broke down: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"metarl: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="metarl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"metarl {version('metarl-maml')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser(
        "train",
        help="meta-train a policy from a config",
        description=TRAIN,
        epilog=TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or a name from `metarl list`"
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.SETTING=VALUE",
        help="change a setting of the config; may be given several times",
    )
    train.add_argument(
        "--out", type=Path, metavar="RUN", help="directory of the run (default: runs/NAME)"
    )
    train.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in RUN")
    train.set_defaults(command=_train)

    evaluation = commands.add_parser(
        "evaluate",
        help="measure how a trained policy adapts to tasks it never saw",
        description="Measure the return after 0, 1, 2, ... gradient steps on unseen tasks, as "
        "the run's config says; write evaluation.json and adaptation.png into the run.",
    )
    evaluation.add_argument("run", type=Path, metavar="RUN", help="directory of a run")
    evaluation.set_defaults(command=_evaluate)

    listing = commands.add_parser("list", help="list the configs that come with the package")
    listing.set_defaults(command=_list)
    return parser


def _train(options: argparse.Namespace, console: Console) -> int:
    run, state = _prepare(options)
    config = run.config
    family = config.family.load()
    inner = inner_loop(config, family)
    state = state or initial_state(config, inner)
    console.print(f"run directory: {run.path}", highlight=False)
    log = MetricsLog(run, state.iteration)
    saved = state
    interrupted = False
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _progress(console) as progress:
            bar = progress.add_task(
                "meta-training",
                total=config.outer.iterations,
                completed=state.iteration,
                returns="",
            )
            for state, metrics in meta_train(config, family, saved):
                log.write(state.iteration, metrics)
                progress.update(bar, completed=state.iteration, returns=_summary(metrics))
                if state.iteration % config.checkpoint_every == 0:
                    run.save(state)
                    saved = state
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # whatever ended it, the last sound state is kept
        log.close()
        if state is not saved or not (run.path / "state.json").exists():
            run.save(state)
    if interrupted:
        console.print(
            f"stopped after {state.iteration} of {config.outer.iterations} meta-iterations; "
            f"continue with: metarl train --resume {run.path}",
            highlight=False,
            soft_wrap=True,
        )
        return INTERRUPTED
    _report(run, evaluate(config, inner, state.theta, family), console)
    return 0


def _prepare(options: argparse.Namespace) -> tuple[Run, TrainingState | None]:
    """The run to work on, and its state if it has one: all that can be wrong is found here."""
    if options.resume:
        if options.out:
            raise UserError(
                "--out and --resume contradict each other; a resumed run stays in place"
            )
        run = Run.open(options.resume, tuple(options.set))
        if options.config:
            run.reconfigure(load_config(options.config, options.set))
        state = run.load()
        if state.iteration >= run.config.outer.iterations:
            raise UserError(
                f"the run in {run.path} is complete ({state.iteration} meta-iterations); to train "
                f"for longer add --set outer.iterations={2 * state.iteration}"
            )
        return run, state
    if not options.config:
        raise UserError(
            f"name a config: a YAML file, or one of {', '.join(shipped_configs())}; or --resume RUN"
        )
    config = load_config(options.config, options.set)
    path = options.out or Path("runs") / Path(options.config).stem
    return Run.create(path, config), None


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[returns]}"),
        console=console,
    )


def _summary(metrics: Metrics) -> str:
    returns = [value for name, value in metrics.items() if name.startswith("return/")]
    return f"return before {returns[0]:.1f}, after adaptation {returns[-1]:.1f}"


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    run = Run.open(options.run)
    state = run.load()
    family = run.config.family.load()
    inner = inner_loop(run.config, family)
    _report(run, evaluate(run.config, inner, state.theta, family), console)
    return 0


def _report(run: Run, curve: AdaptationCurve, console: Console) -> None:
    run.write_json("evaluation.json", curve.to_json())
    plot = run.path / "adaptation.png"
    plot_adaptation({"MAML": curve}, f"Adaptation: {run.config.family.name}", plot)
    table = Table(title=f"{run.config.family.name}: return on {len(curve.tasks)} unseen tasks")
    table.add_column("gradient steps", justify="right")
    table.add_column("mean return", justify="right")
    table.add_column("95% interval", justify="right")
    for step, (mean, interval) in enumerate(zip(curve.mean, curve.interval, strict=True)):
        table.add_row(str(step), f"{mean:.2f}", f"± {interval:.2f}")
    console.print(table)
    console.print(f"plot: {plot}", highlight=False)


def _list(options: argparse.Namespace, console: Console) -> int:
    table = Table(title="configs", show_header=True)
    table.add_column("name")
    table.add_column("what it is")
    for name, path in shipped_configs().items():
        table.add_row(name, path.read_text().splitlines()[0].removeprefix("# "))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
