"""`metarl completion`."""

import argparse
from importlib import import_module
from pathlib import Path

from rich.console import Console

from metarl.cli.parser import make_parser
from metarl.config.files import shipped_configs, trained_runs
from metarl.errors import UserError


def run(options: argparse.Namespace, console: Console) -> int:
    try:
        shtab = import_module("shtab")
    except ImportError as error:
        raise UserError(
            "completion needs shtab, which is not installed: pip install 'metarl-maml[completion]'"
        ) from error
    # names are part of the script, since Python takes too long to start when TAB is pressed;
    # files are listed by `sh`, since zsh and fish refuse a pattern without a match
    configs = shtab.cmd(f"sh -c 'echo {' '.join(shipped_configs())} *.yaml'")
    runs = shtab.cmd(f"sh -c 'echo {' '.join(trained_runs())} runs/*'")
    names = {"config": configs, "run": runs, "runs": runs, "init_from": runs, "resume": runs}
    parser = make_parser()
    for argument in parser.all_arguments():
        if argument.dest in names:
            argument.complete = names[argument.dest]  # type: ignore[attr-defined]
        elif argument.type is Path:
            argument.complete = shtab.FILE  # type: ignore[attr-defined]
    console.file.write(shtab.complete(parser, options.shell) + "\n")
    return 0
