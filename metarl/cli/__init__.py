"""The command line: a module a command, which is imported once its command is chosen.

What a command needs takes seconds to import; its help, or a mistake in its arguments, should not.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from rich.console import Console

from metarl.cli.arguments import check_runs
from metarl.cli.signals import INTERRUPTED, STOPPING
from metarl.errors import ProcessLost, StorageError, UserError
from metarl.supervised.config import DATA_VARIABLE
from metarl.threads import under_torchrun

DESCRIPTION = """\
Meta-learning with MAML (Finn et al., 2017): train a policy, a regression or a classifier that
adapts to a new task within a few gradient steps, measure how well it does, and look at it."""

EXAMPLES = """\
examples:
  metarl list                                    the configs and trained runs of the package
  metarl train quickstart                        a few minutes, into runs/quickstart
  metarl train my.yaml --set inner.step_size=0.2 --out runs/mine
  metarl train quickstart --seeds 5              five seeds side by side, and their table
  metarl sweep quickstart --set inner.step_size=0.1,0.5 --seeds 3
  metarl train --resume runs/mine                continue exactly where it stopped
  metarl baseline my.yaml --kind pretrained      PPO on all tasks, with the same budget
  metarl evaluate runs/mine                      scores after 0, 1, 2, ... gradient steps
  metarl compare runs/mine runs/my-pretrained    table and plots
  metarl render runs/mine                        video before and after adaptation
  metarl report runs/*                           everything in one HTML page
  metarl data check data                         what image data there are in a folder
  metarl train omniglot_5way_1shot --data data   few-shot classification
  tensorboard --logdir runs                      watch returns, KL, entropy, speed
"""


COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("train:declare_train", "meta-train from a config"),
    "baseline": ("train:declare_baseline", "train what meta-learning is compared with"),
    "sweep": ("sweep:declare", "train every combination of settings and seeds, and rank them"),
    "evaluate": ("evaluate:declare", "measure how well trained runs adapt to tasks they never saw"),
    "compare": ("compare:declare", "put runs side by side: table and plots"),
    "render": (
        "render:declare",
        "film a policy, or draw what a network says, before and after adaptation",
    ),
    "report": ("report:declare", "write one HTML page with table, curves, videos and configs"),
    "results": (
        "results:declare",
        "write a page of results beside the published figures, from runs",
    ),
    "push": ("push:declare", "put a run on the Hugging Face hub, with a model card"),
    "export": ("export:declare", "write a policy as a model of stable-baselines3"),
    "list": ("list:declare", "list the configs and the trained runs that come with the package"),
    "data": ("data:declare", "look after the images for few-shot classification"),
    "bench": ("bench:declare", "measure speed and memory"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, 1 where training broke down, another process died or the disk is full, 2
        for a mistake of the user's, 130 after an interruption.
    """
    given = sys.argv[1:] if arguments is None else arguments
    console = Console()
    complain = Console(stderr=True)
    try:
        options = _parser(given).parse_args(given)
        if getattr(options, "data", None):
            os.environ[DATA_VARIABLE] = options.data
        if strange := [argument for argument in given if "\0" in argument]:
            raise UserError(f"{strange[0]!r} has a NUL character, which no name of a file has")
        check_runs(options)
        status: int = options.command(options, console)
        return status
    except UserError as error:
        complain.print(
            f"metarl: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        return 2
    except (ProcessLost, StorageError) as error:
        complain.print(f"metarl: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except FloatingPointError as error:
        complain.print(f"metarl: it broke down: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except (MemoryError, RuntimeError) as error:
        # torch has no class of its own for this
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        complain.print(
            "metarl: there is not enough memory; take a smaller network, fewer tasks "
            "(outer.meta_batch) or fewer samples of each",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def run() -> NoReturn:
    """The process of the command line: `main`, and its exit status.

    After an interruption everything is saved: a signal that comes while Python winds down, which
    takes longer than two signals of one Ctrl-C are apart, must not turn the status into a kill.
    """
    status = main()
    if status == INTERRUPTED:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
    if under_torchrun():
        # all is written and closed; torch's own threads now and then abort a process that winds
        # down ("terminate called without an active exception"), and torchrun calls the training
        # failed
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"metarl: {message}; see {self.prog} --help\n")


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, of which the one that is given has its arguments."""
    parser = _Parser(
        prog="metarl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"metarl {version('metarl-maml')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = next((argument for argument in given if not argument.startswith("-")), None)
    for name, (where, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:
            module, _, function = where.partition(":")
            declare: Callable[[argparse.ArgumentParser], None]
            declare = getattr(import_module(f"metarl.cli.{module}"), function)
            declare(command)
    return parser


if __name__ == "__main__":
    run()
