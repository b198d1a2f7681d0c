"""What the arguments of several commands have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from metarl.errors import UserError
from metarl.experiment import TRUST_VARIABLE, resolve_run_dir, shipped_configs
from metarl.runs.hub import PREFIX
from metarl.supervised.config import DATA_VARIABLE

Command = Callable[[argparse.Namespace, Console], int]
RUN = "a run's directory, the name of a trained one from `metarl list`, or hf:USER/NAME"


def describe(
    parser: argparse.ArgumentParser, description: str, examples: str, command: Command
) -> None:
    """Give a command's parser its help, set as it was written, and what it runs."""
    parser.description, parser.epilog = description, examples
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(command=command)


def add_config(parser: argparse.ArgumentParser) -> None:
    """A config, as `options.config`; None where something is resumed."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or a name from `metarl list`"
    )


def no_config(instead: str) -> UserError:
    """What to raise where there should be a config; `instead` is what else might be said."""
    names = ", ".join(shipped_configs())
    return UserError(f"name a config: a YAML file, or one of {names}; or {instead}")


def add_run(parser: argparse.ArgumentParser) -> None:
    """One run, as `options.run`."""
    parser.add_argument("run", type=Path, metavar="RUN", help=RUN)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """One or more runs, as `options.runs`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=RUN)


def check_runs(options: argparse.Namespace) -> None:
    """Raise UserError if there is no such run: before torch is imported, which takes a second."""
    single = getattr(options, "run", None)
    for path in getattr(options, "runs", [single] if single else []):
        if not str(path).startswith(PREFIX):
            resolve_run_dir(path)


def add_set(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """Changed settings, as `options.set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar=metavar,
        help=f"{what}; may be given several times",
    )


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """A project of Weights & Biases, as `options.wandb`."""
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="log to this project of Weights & Biases too (pip install 'metarl-maml[wandb]')",
    )


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Several seeds, for `seeds_of`."""
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="train with several seeds side by side: 3 for the seeds 1, 2 and 3, or 4 8 for these",
    )


def seeds_of(options: argparse.Namespace) -> list[int]:
    """The seeds that `options.seeds` stands for; empty where there are none."""
    given: list[int] = options.seeds or []
    if len(given) == 1:
        if given[0] < 1:
            raise UserError(f"--seeds {given[0]}: one number is how many seeds, at least 1")
        return list(range(1, given[0] + 1))
    if negative := [seed for seed in given if seed < 0]:
        raise UserError(f"--seeds: a seed is a natural number, not {negative[0]}")
    if len({*given}) < len(given):
        raise UserError("--seeds: a seed is given twice; once is enough")
    return given


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Whether to import what a run names, as `options.trust_code`."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import what a run's config names that is not of this package, such as a family of "
        f"one's own: it is executed (or set {TRUST_VARIABLE}=1)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where data sets are, as `options.data`."""
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help=f"where Omniglot and MiniImagenet are (default: the variable {DATA_VARIABLE})",
    )
