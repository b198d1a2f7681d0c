"""Runs side by side: measured and told, by `compare` and by all that end in a comparison."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.progress import working
from metarl.runs.comparison import Entry, by_tasks, compare, meaning, refuse_twice, rows
from metarl.runs.results import measured
from metarl.runs.run import Run


def table(title: str, entries: Sequence[Entry]) -> Table:
    """A column for each entry, so that it fits a terminal of 80 columns."""
    table = Table(title=title, caption=meaning(entries))
    labels, *quantities = zip(*(row.items() for row in rows(entries)), strict=True)
    table.add_column()
    for _, label in labels:
        table.add_column(label, justify="right")
    for metric in quantities:
        name = metric[0][0]
        table.add_row(name, *(value.replace(" [", "\n[") for _, value in metric))
    return table


def load_by_tasks(paths: Sequence[Path], trust_code: bool, console: Console) -> list[list[Entry]]:
    """A comparison for each family of tasks or data set among these runs."""
    runs = [Run.open(path, trust_code=trust_code) for path in paths]
    return [load(group, console) for group in by_tasks(runs)]


def load(runs: Sequence[Run], console: Console) -> list[Entry]:
    """The comparison of these runs; what was not evaluated yet is evaluated."""
    for run in runs:
        run.load()  # what is damaged is found before any work
    refuse_twice(runs)
    for number, run in enumerate(runs, start=1):
        with working(console, f"evaluating {run.path} ({number} of {len(runs)})"):
            measured(run)
    return compare(runs)
