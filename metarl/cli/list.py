"""`metarl list`."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import describe
from metarl.evaluation import format_score
from metarl.experiment import read_values, shipped_configs, trained_runs

DESCRIPTION = "List the configs and the trained runs that come with the package."


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, "", _list)


def _list(options: argparse.Namespace, console: Console) -> int:
    configs = Table(title="configs, for `metarl train`", title_justify="left")
    configs.add_column("name", overflow="fold")
    configs.add_column("what it is", overflow="fold")
    for name, path in shipped_configs().items():
        configs.add_row(name, path.read_text().splitlines()[0].removeprefix("# "))
    console.print(configs)

    trained = Table(
        title="trained, for `metarl evaluate`, `render`, `compare`, `report`, `export`",
        caption="return, error or accuracy on unseen tasks after 0, 1, 2, ... gradient steps",
        title_justify="left",
    )
    for column in ("name", "what it is", "how well it adapts"):
        trained.add_column(column, overflow="fold")
    for name, path in trained_runs().items():
        trained.add_row(name, *_results(path))
    console.print(trained)
    return 0


def _results(path: Path) -> tuple[str, str]:
    """What a run of the package is of, and its scores.

    Read from its files as they are: to load the run would take seconds, for what it needs to go on.
    """
    config = read_values(path / "config.yaml")
    evaluation = json.loads((path / "evaluation.json").read_text())
    metric, _, _ = (path / "evaluation.csv").read_text().removeprefix("task,").partition("_after_")
    tasks = (config.get("family") or config["data"])["name"]
    updates, seed = evaluation["iteration"], config["seed"]
    scores = " → ".join(format_score(value) for value in evaluation["mean"][:4])
    what = f"{evaluation['method']}, {tasks}, {updates} updates, seed {seed}"
    return what, f"{metric} {scores}"
