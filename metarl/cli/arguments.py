"""Arguments that several commands share."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.config.files import DATA_VARIABLE, TRUST_VARIABLE, shipped_configs
from metarl.errors import UserError

Command = Callable[[argparse.Namespace, Console], int]
RUN = "a run directory, the name of a trained run from `metarl list`, or hf:USER/NAME"


def set_help(
    parser: argparse.ArgumentParser, description: str, examples: str, command: Command
) -> None:
    """Set the help of a command, printed without reformatting, and its function."""
    parser.description, parser.epilog = description, examples
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(command=command)


def add_config(parser: argparse.ArgumentParser) -> None:
    """A config, as `options.config`; None if omitted."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or a name from `metarl list`"
    )


def missing_config_error(alternative: str) -> UserError:
    """The error for a missing config; `alternative` is an option that takes its place."""
    names = ", ".join(shipped_configs())
    return UserError(f"name a config: a YAML file, or one of {names}; or use {alternative}")


def add_run(parser: argparse.ArgumentParser) -> None:
    """One run, as `options.run`."""
    parser.add_argument("run", type=Path, metavar="RUN", help=RUN)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """One or more runs, as `options.runs`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=RUN)


def add_set(parser: argparse.ArgumentParser, metavar: str, help_text: str) -> None:
    """Changed settings, as `options.set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar=metavar,
        help=f"{help_text}; may be given several times",
    )


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """A project of Weights & Biases, as `options.wandb`."""
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="also log to this project of Weights & Biases (pip install 'metarl-maml[wandb]')",
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Several seeds, for `seeds_of`."""
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="train several seeds in parallel: 3 for the seeds 1, 2 and 3, or a list such as 4 8",
    )


def seeds_of(options: argparse.Namespace) -> list[int]:
    """The seeds that `options.seeds` stands for; empty if there are none."""
    seeds: list[int] = options.seeds or []
    if len(seeds) == 1:
        if seeds[0] < 1:
            raise UserError(f"--seeds {seeds[0]}: the number of seeds must be at least 1")
        return list(range(1, seeds[0] + 1))
    if negative := [seed for seed in seeds if seed < 0]:
        raise UserError(f"--seeds: a seed must be at least 0, not {negative[0]}")
    if len({*seeds}) < len(seeds):
        raise UserError("--seeds: a seed is given twice; name each once")
    return seeds


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Whether to import code that a run names, as `options.trust_code`."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import and execute code outside metarl that a run's config names, such as a custom "
        f"task family (or set {TRUST_VARIABLE}=1)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """The folder with data sets, as an environment variable of this process."""
    parser.add_argument(
        "--data",
        action=_SetData,
        metavar="FOLDER",
        help=f"the folder with Omniglot and MiniImagenet (default: the variable {DATA_VARIABLE})",
    )


class _SetData(argparse.Action):
    """Sets the environment variable, so that child processes find the data too."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        os.environ[DATA_VARIABLE] = str(values)
