"""`metarl list`."""

import argparse

from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import Commands, declare
from metarl.evaluation import short
from metarl.runs.config import shipped_configs
from metarl.runs.results import measured
from metarl.runs.run import Run, trained_runs


def add_command(commands: Commands) -> None:
    """Declare the command."""
    summary = "list the configs and the trained runs that come with the package"
    declare(commands, "list", summary, f"{summary.capitalize()}.", "", _list)


def _list(options: argparse.Namespace, console: Console) -> int:
    configs = Table(title="configs, for `metarl train`", title_justify="left")
    configs.add_column("name", no_wrap=True)
    configs.add_column("what it is")
    for name, path in shipped_configs().items():
        configs.add_row(name, path.read_text().splitlines()[0].removeprefix("# "))
    console.print(configs)

    trained = Table(
        title="trained, for `metarl evaluate`, `render`, `compare`, `report`, `export`",
        caption="return, error or accuracy on unseen tasks after 0, 1, 2, ... gradient steps",
        title_justify="left",
    )
    trained.add_column("name", no_wrap=True)
    trained.add_column("what it is")
    trained.add_column("seed")
    trained.add_column("how well it adapts")
    for name, path in trained_runs().items():
        run = Run.open(path)
        curve, method = measured(run)
        problem = method.problem
        what = f"{method.label}, {problem.title}, {run.load().iteration} updates"
        scores = " → ".join(short(value) for value in curve.summary.estimate[:4])
        trained.add_row(name, what, str(run.config.seed), f"{problem.metric.name} {scores}")
    console.print(trained)
    return 0
