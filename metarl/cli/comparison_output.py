"""Loading runs for a comparison, and printing its tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.progress import working
from metarl.report.comparison import tables
from metarl.report.evaluations import Evaluation, evaluation_names, load_or_evaluate
from metarl.report.groups import ExperimentGroup, check_unique, compare, group_by_tasks
from metarl.runs.run import Run


def show(console: Console, entries: Sequence[ExperimentGroup]) -> None:
    """Print a comparison, the title above the first of its tables."""
    titles = [entries[0].method.problem.title, None]
    for title, (table, said) in zip(titles, tables(entries), strict=False):
        console.print(_table(title, table, said))


def _table(title: str | None, rows: Sequence[Mapping[str, str]], caption: str) -> Table:
    """A column for each row, so that it fits a terminal of 80 columns."""
    table = Table(title=title, caption=caption)
    (corner, *labels), *quantities = [(name, *(row[name] for row in rows)) for name in rows[0]]
    table.add_column("" if corner == "method" else corner)
    for label in labels:
        table.add_column(label, justify="right")
    for name, *values in quantities:
        table.add_row(name, *(value.replace(" [", "\n[") for value in values))
    return table


def load_by_tasks(
    paths: Sequence[Path], trust_code: bool, console: Console
) -> list[list[ExperimentGroup]]:
    """A comparison for each family of tasks or data set among these runs."""
    runs = [Run.open(path, trust_code=trust_code) for path in paths]
    return [load(group, console) for group in group_by_tasks(runs)]


def load_all(paths: Sequence[Path], trust_code: bool, console: Console) -> list[Evaluation]:
    """All evaluations of these runs: first those of their configs, then those with a name."""
    runs = [Run.open(path, trust_code=trust_code) for path in paths]
    found = _evaluated(runs, evaluation_names, console)
    return [first for first, *_ in found] + [each for _, *named in found for each in named]


def load(runs: Sequence[Run], console: Console) -> list[ExperimentGroup]:
    """The comparison of these runs; what was not evaluated yet is evaluated."""
    _evaluated(runs, lambda _: [""], console)
    return compare(runs)


def _evaluated(
    runs: Sequence[Run], names: Callable[[Run], Sequence[str]], console: Console
) -> list[list[Evaluation]]:
    """The evaluations of each run, of these names."""
    for run in runs:
        run.description()  # what is damaged is found before any work
    check_unique(runs)
    found = []
    for number, run in enumerate(runs, start=1):
        with working(console, f"evaluating {run.path} ({number} of {len(runs)})"):
            found.append([load_or_evaluate(run, name) for name in names(run)])
    return found
