"""`metarl evaluate`."""

import argparse

from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import Commands, add_data, add_runs, add_set, add_trust, declare
from metarl.evaluation import AdaptationCurve, Summary, short, summarise
from metarl.method import Method, load_method
from metarl.runs.comparison import SEED, refuse_twice
from metarl.runs.config import differences
from metarl.runs.results import measure
from metarl.runs.run import Run

DESCRIPTION = """\
Measure the return, error or accuracy after 0, 1, 2, ... gradient steps on tasks that were never
trained on. The tasks are fixed by a seed of their own, so that every method meets the same ones,
and evaluating twice gives the same numbers. Writes evaluation.json, evaluation.csv and
adaptation.png into each run.

Runs that differ in their seed alone are summed up together: returns by the interquartile mean,
errors and accuracies by the mean, with an interval over runs."""

EXAMPLES = """\
examples:
  metarl evaluate runs/quickstart
  metarl evaluate point_navigation                 a policy that comes with the package
  metarl evaluate runs/point-1 runs/point-2 runs/point-3
  metarl evaluate runs/point-1 --set evaluation.tasks=200 --set evaluation.step_sizes=[0.5,0.5]
  metarl evaluate runs/omniglot --data data --set evaluation.queries=15
  metarl evaluate runs/omniglot --data data --set evaluation.transductive=false
"""


def add_command(commands: Commands) -> None:
    """Declare the command."""
    summary = "measure how well trained runs adapt to tasks they never saw"
    parser = declare(commands, "evaluate", summary, DESCRIPTION, EXAMPLES, _evaluate)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    add_set(parser, "evaluation.SETTING=VALUE", "evaluate otherwise than the run's config says")


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    runs = [Run.open(path, tuple(options.set), options.trust_code) for path in options.runs]
    for run in runs:
        run.load()  # what is damaged is found before any work
    refuse_twice(runs)
    methods = [load_method(run.config) for run in runs]
    for run, method in zip(runs, methods, strict=True):
        method.problem.check()
        run.check_data_hashes(method.problem.data_hashes)
    pairs = zip(runs, methods, strict=True)
    curves = [report(run, method, console).scores for run, method in pairs]
    settings = [method.problem.evaluation_settings for method in methods]
    seeds = not any(differences(runs[0].config, run.config, SEED) for run in runs[1:])
    if len(runs) > 1 and seeds and all(other == settings[0] for other in settings):
        summary = summarise(curves, methods[0].problem.metric.iqm)
        console.print(_table(f"all {len(runs)} runs", methods[0], summary))
    return 0


def report(run: Run, method: Method, console: Console) -> AdaptationCurve:
    """Measure a run, print its adaptation curve, and say where the plot is."""
    with console.status(f"evaluating {run.path} ..."):
        curve = measure(run, method)
    title = f"{run.path}: {method.label}"
    console.print(_table(title, method, curve.summary))
    if len(curve.step_sizes):
        sizes = ", ".join(f"{size:g}" for size in curve.step_sizes)
        console.print(f"step sizes: {sizes}", highlight=False)
    console.print(f"plot: {run.results / 'adaptation.png'}", highlight=False, soft_wrap=True)
    return curve


def _table(title: str, method: Method, summary: Summary) -> Table:
    table = Table(title=title, caption=summary.meaning)
    by_episodes = method.axis == "episodes"
    table.add_column("episode" if by_episodes else "gradient steps", justify="right")
    table.add_column(method.problem.metric.name, justify="right")
    table.add_column("95% interval", justify="right")
    for step, (estimate, low, high) in enumerate(
        zip(summary.estimate, summary.low, summary.high, strict=True)
    ):
        table.add_row(str(step + by_episodes), short(estimate), f"[{short(low)}, {short(high)}]")
    return table
