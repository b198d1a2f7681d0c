"""Evaluations and comparisons on the console, for several commands."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.evaluation import WORST, AdaptationCurve, format_score, mean_worst_tasks
from metarl.intervals import summarise, summarise_success
from metarl.method import GRADIENT_STEPS, Method
from metarl.progress import print_line, show_status
from metarl.report.comparison import tables
from metarl.report.evaluations import (
    Evaluation,
    default_name,
    evaluate,
    evaluation_names,
    file_suffix,
    load_or_evaluate,
    replaced_settings,
)
from metarl.report.groups import ExperimentGroup, check_readable, compare
from metarl.runs.run import Run


def evaluate_and_print(
    run: Run, method: Method, console: Console, name: str = ""
) -> AdaptationCurve:
    """Evaluate a run, and print its adaptation curve and the path of its plot."""
    with show_status(console, f"evaluating {run.path}"):
        replaced = replaced_settings(run, method, name)
        curve = evaluate(run, method, name)
    if replaced:
        print_line(console, f"replaced an evaluation with {replaced}; --name keeps both")
    console.print(curve_table(f"{run.path}: {method.label}", method, [curve]))
    if len(curve.step_sizes):
        print_line(console, f"step sizes: {', '.join(f'{size:g}' for size in curve.step_sizes)}")
        config = method.problem.config
        if (episodes := getattr(config.inner, "episodes_per_task", None)) and curve.episodes:
            count = config.evaluation.episodes_per_task
            differs = f", and on {episodes} in training" * (episodes != count)
            print_line(console, f"each on {count} episodes{differs} (evaluation.episodes_per_task)")
    name = name or default_name(run)
    print_line(console, f"plot: {run.results / f'adaptation{file_suffix(name)}.png'}")
    return curve


def curve_table(title: str, method: Method, curves: Sequence[AdaptationCurve]) -> Table:
    """The adaptation curve of one or several runs as a table, one row per stage."""
    scores, metric = [curve.scores for curve in curves], method.problem.metric
    summary, success = summarise(scores), summarise_success(curves)
    unit = method.adaptation_unit or GRADIENT_STEPS
    table = Table(title=title, caption=summary.meaning)
    success_columns = [metric.success.name] if success else []
    for column in (unit.column, metric.name, "95% interval", WORST, *success_columns):
        table.add_column(column, justify="right")
    columns = summary.estimate, summary.low, summary.high, mean_worst_tasks(scores, metric)
    for step, numbers in enumerate(zip(*columns, strict=True)):
        estimate, low, high, worst = map(format_score, numbers)
        rate = [success.format_step(step)] if success else []
        table.add_row(str(step + unit.first), estimate, f"[{low}, {high}]", worst, *rate)
    return table


def print_comparison(console: Console, groups: Sequence[ExperimentGroup]) -> None:
    """Print the tables of a comparison, with the title of the tasks above the first one."""
    # without `strict`: a comparison of one experiment has a single table
    titles = [groups[0].method.problem.title, None]
    for title, (table, caption) in zip(titles, tables(groups), strict=False):
        console.print(_transposed(title, table, caption))


def _transposed(title: str | None, rows: Sequence[Mapping[str, str]], caption: str) -> Table:
    """A table with one column per method, which fits into 80 characters."""
    table = Table(title=title, caption=caption)
    (corner, *labels), *quantities = [(name, *(row[name] for row in rows)) for name in rows[0]]
    table.add_column("" if corner == "method" else corner)
    for label in labels:
        table.add_column(label, justify="right")
    for name, *values in quantities:  # an interval goes below its estimate, to save columns
        table.add_row(name, *(value.replace(" [", "\n[") for value in values))
    return table


def open_runs(paths: Sequence[Path], trust_code: bool) -> list[Run]:
    """Open all runs, so that a wrong path is reported before any work."""
    return [Run.open(path, trust_code=trust_code) for path in paths]


def compare_runs(runs: Sequence[Run], console: Console) -> list[ExperimentGroup]:
    """Group runs into experiments, evaluating those that have no current evaluation."""

    def load(run: Run) -> Evaluation:
        with _status(run, runs, console):
            return load_or_evaluate(run)

    return compare(runs, load)


def all_evaluations(runs: Sequence[Run], console: Console) -> list[Evaluation]:
    """All evaluations of runs: those of their configs, then those with a name."""
    check_readable(runs)
    evaluations = []
    for run in runs:
        with _status(run, runs, console):
            evaluations.append([load_or_evaluate(run, name) for name in evaluation_names(run)])
    named = [evaluation for _, *others in evaluations for evaluation in others]
    return [first for first, *_ in evaluations] + named


def _status(run: Run, runs: Sequence[Run], console: Console) -> AbstractContextManager[object]:
    number = runs.index(run) + 1
    return show_status(console, f"evaluating {run.path} ({number} of {len(runs)})")
