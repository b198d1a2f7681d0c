"""The command line: one module per command, imported when the command runs.

Each has a function `run` of the parsed options and a console, which returns the exit status.
"""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from rich.console import Console

from metarl.cli.parser import make_parser
from metarl.config.files import DATA_VARIABLE
from metarl.errors import ProcessLost, StorageError, UserError
from metarl.launch.signals import INTERRUPTED, STOP_SIGNALS
from metarl.threads import is_main_process, under_torchrun

FILE_WIDTH = 160  # characters


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 if training diverged, another process died or the disk is full; 2 for
        an error in arguments or files; 130 after an interruption.
    """
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # such as old names of settings; Python hides these warnings by default
    warnings.filterwarnings("default", category=DeprecationWarning, module=r"metarl\.")
    try:
        options = make_parser().parse_args(arguments)
        if invalid := [argument for argument in arguments if "\0" in argument]:
            raise UserError(f"{invalid[0]!r} has a NUL character, which file names cannot have")
        if under_torchrun() and options.command != "train":
            if not is_main_process():
                return 2  # the first process reports the error
            raise UserError(
                f"metarl {options.command} is one process: start it without torchrun, which shares "
                "trainings among processes"
            )
        if data := getattr(options, "data", None):
            os.environ[DATA_VARIABLE] = data  # child processes find it too
        # a module per command: `metarl list` does not wait for torch
        # tables in files and pipes, whose width is unknown, are not cut off
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_WIDTH
        console = Console(width=width)
        status: int = import_module(f"metarl.cli.{options.command}").run(options, console)
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
    except OSError as error:
        # a path on the command line; all other errors of files are translated where they occur
        if error.errno != errno.ENAMETOOLONG:
            raise
        return _fail(f"the name of a file is too long: {str(error.filename)[:60]}...", 2)
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
        os._exit(status)  # without the clean-up in which they abort
    sys.exit(status)


if __name__ == "__main__":
    run()
