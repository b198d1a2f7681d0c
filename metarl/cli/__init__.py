"""The command line."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from rich.console import Console

from metarl.cli import bench, compare, data, evaluate, export, list, render, report, train
from metarl.distributed import ProcessLost, under_torchrun
from metarl.errors import StorageError, UserError
from metarl.supervised.data import DATA_VARIABLE

DESCRIPTION = """\
Meta-learning with MAML (Finn et al., 2017): train a policy, a regression or a classifier that
adapts to a new task within a few gradient steps, measure how well it does, and look at it."""

EXAMPLES = """\
examples:
  metarl list                                    the configs and trained runs of the package
  metarl train quickstart                        a few minutes, into runs/quickstart
  metarl train my.yaml --set inner.step_size=0.2 --out runs/mine
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, 1 where training broke down, another process died or the disk is full, 2
        for a mistake of the user's, 130 after an interruption.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    console = Console()
    complain = Console(stderr=True)
    if getattr(options, "data", None):
        os.environ[DATA_VARIABLE] = options.data
    try:
        if strange := [argument for argument in given if "\0" in argument]:
            raise UserError(f"{strange[0]!r} has a NUL character, which no name of a file has")
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
        return train.INTERRUPTED


def run() -> NoReturn:
    """The process of the command line: `main`, and its exit status.

    After an interruption everything is saved: a signal that comes while Python winds down, which
    takes longer than two signals of one Ctrl-C are apart, must not turn the status into a kill.
    """
    status = main()
    if status == train.INTERRUPTED:
        for number in train.STOPPING:
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="metarl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"metarl {version('metarl-maml')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train.add_commands(commands)
    for command in (evaluate, compare, render, report, export, list, data, bench):
        command.add_command(commands)
    return parser


if __name__ == "__main__":
    run()
