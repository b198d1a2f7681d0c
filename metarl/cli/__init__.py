"""The command line: one module per command, imported when the command is chosen.

Commands import torch, which takes a second; `metarl --help` and `metarl list` don't wait for it.
"""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from rich.console import Console

from metarl.errors import ProcessLost, StorageError, UserError
from metarl.launch.signals import INTERRUPTED, STOP_SIGNALS
from metarl.threads import under_torchrun

DESCRIPTION = """\
Meta-learning with MAML (Finn et al., 2017): train a policy, a regression or a classifier that
adapts to a new task within a few gradient steps; evaluate, compare and visualise its adaptation."""

EXAMPLES = """\
examples:
  metarl list                                    configs and trained runs of the package
  metarl train quickstart                        takes a few minutes; writes runs/quickstart
  metarl train my.yaml --set inner.step_size=0.2 --out runs/mine
  metarl train quickstart --seeds 5              five seeds in parallel, and their table
  metarl sweep quickstart --set inner.step_size=0.1,0.5 --seeds 3
  metarl train --resume runs/mine                continue, bit for bit
  metarl baseline my.yaml --kind pretrained      multi-task PPO with the same budget
  metarl evaluate runs/mine                      scores after 0, 1, 2, ... gradient steps
  metarl compare runs/mine runs/my-pretrained    table and plots
  metarl render runs/mine                        video before and after adaptation
  metarl report runs/*                           a self-contained HTML report
  metarl data check data                         which image data sets a folder has
  metarl train omniglot_5way_1shot --data data   few-shot classification
  tensorboard --logdir runs                      watch returns, KL, entropy, speed
"""


COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("train:declare_train", "meta-train from a config"),
    "baseline": ("train:declare_baseline", "train a baseline"),
    "sweep": ("sweep:declare", "train all combinations of settings and seeds, and rank them"),
    "evaluate": ("evaluate:declare", "evaluate the adaptation of trained runs to held-out tasks"),
    "compare": ("compare:declare", "compare runs: table and plots"),
    "render": (
        "render:declare",
        "render a policy or plot predictions, before and after adaptation",
    ),
    "report": ("report:declare", "write an HTML report with tables, plots, videos and configs"),
    "results": (
        "results:declare",
        "write a results page of runs and published figures",
    ),
    "push": ("push:declare", "upload a run to the Hugging Face hub, with a model card"),
    "export": ("export:declare", "export a policy as a stable-baselines3 model"),
    "list": ("list:declare", "list the configs and trained runs of the package"),
    "data": ("data:declare", "manage data sets for few-shot classification"),
    "bench": ("bench:declare", "measure speed and memory"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 if training diverged, another process died or the disk is full; 2 for
        an error in arguments or files; 130 after an interruption.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # such as old names of settings; Python hides these warnings by default
    warnings.filterwarnings("default", category=DeprecationWarning, module=r"metarl\.")
    try:
        options = _parser(arguments).parse_args(arguments)
        if invalid := [argument for argument in arguments if "\0" in argument]:
            raise UserError(f"{invalid[0]!r} has a NUL character, which file names cannot have")
        status: int = options.command(options, Console())
        return status
    except UserError as error:
        return _fail(str(error), 2)
    except (ProcessLost, StorageError) as error:
        return _fail(str(error), 1)
    except FloatingPointError as error:
        return _fail(f"training diverged: {error}", 1)
    except (MemoryError, RuntimeError) as error:
        # torch raises a plain RuntimeError when it cannot allocate memory
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return _fail(
            "there is not enough memory; use a smaller network, fewer tasks (outer.meta_batch) or "
            "fewer samples per task",
            1,
        )
    except KeyboardInterrupt:
        return INTERRUPTED


def _fail(message: str, status: int) -> int:
    console = Console(stderr=True)
    console.print(f"metarl: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    return status


def run() -> NoReturn:
    """The entry point of the process: `main`, then exit with its status."""
    status = main()
    if status == INTERRUPTED:
        # Ctrl-C may send a second signal while Python exits; it must not change the exit status
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if under_torchrun():
        # torch's threads sometimes abort a process at exit ("terminate called without an active
        # exception"), which torchrun reports as a failed training; everything is written by now
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"metarl: {message}; see {self.prog} --help\n")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; only the chosen one declares its arguments."""
    parser = _Parser(
        prog="metarl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"metarl {version('metarl-maml')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = next((name for name in arguments if not name.startswith("-")), None)
    for name, (target, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:
            module, _, function = target.partition(":")
            declare: Callable[[argparse.ArgumentParser], None]
            declare = getattr(import_module(f"metarl.cli.{module}"), function)
            declare(command)
    return parser


if __name__ == "__main__":
    run()
