"""`metarl list`."""

import argparse

from rich.console import Console
from rich.table import Table

from metarl.commands import Commands, declare
from metarl.config import shipped_configs
from metarl.methods import LABELS, policy_experiment
from metarl.results import measured
from metarl.run import Run, trained_policies


def add_command(commands: Commands) -> None:
    """Declare the command."""
    summary = "list the configs and the trained policies that come with the package"
    declare(commands, "list", summary, f"{summary.capitalize()}.", "", _list)


def _list(options: argparse.Namespace, console: Console) -> int:
    configs = Table(title="configs, for `metarl train`", title_justify="left")
    configs.add_column("name", no_wrap=True)
    configs.add_column("what it is")
    for name, path in shipped_configs().items():
        configs.add_row(name, path.read_text().splitlines()[0].removeprefix("# "))
    console.print(configs)

    policies = Table(
        title="trained policies, for `metarl evaluate`, `render`, `compare`, `export`",
        caption="return on unseen tasks after 0, 1, 2, ... gradient steps",
        title_justify="left",
    )
    policies.add_column("name", no_wrap=True)
    policies.add_column("what it is")
    policies.add_column("seed")
    policies.add_column("return")
    for name, path in trained_policies().items():
        run = Run.open(path)
        curve, _ = measured(run)
        returns = " → ".join(f"{value:.1f}" for value in curve.summary.centre)
        title, updates = policy_experiment(run).title, run.load().iteration
        what = f"{LABELS[run.config.method]}, {title}, {updates} updates"
        policies.add_row(name, what, str(run.config.seed), returns)
    console.print(policies)
    return 0
