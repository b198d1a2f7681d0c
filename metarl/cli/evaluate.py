"""`metarl evaluate`."""

import argparse
import re

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_set, add_trust, set_help
from metarl.cli.output import curve_table, evaluate_and_print
from metarl.intervals import summarise
from metarl.method import load_method
from metarl.report.evaluations import PAPER, with_paper_schedule
from metarl.report.groups import check_unique, same_experiment
from metarl.runs.run import Run

DESCRIPTION = """\
Evaluate the return, error or accuracy after 0, 1, 2, ... gradient steps on held-out tasks. The
tasks have a seed of their own: they are the same for all methods, and evaluations are reproducible.
Writes evaluation.json, evaluation.csv and adaptation.png into each run; --name keeps the existing
files.

Runs that differ only in their seed are aggregated: mean and interval over runs."""

EXAMPLES = """\
examples:
  metarl evaluate runs/quickstart
  metarl evaluate point_navigation                 a policy of the package
  metarl evaluate runs/point-1 runs/point-2 runs/point-3
  metarl evaluate runs/point-1 --set evaluation.tasks=200 --set evaluation.step_sizes=[0.5,0.5]
  metarl evaluate runs/point-1 --schedule paper    step sizes of Finn et al. (2017)
  metarl evaluate runs/omniglot --data data --set evaluation.queries=15 --name 15-queries
  metarl evaluate runs/omniglot --data data --set evaluation.transductive=false --name alone
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _evaluate)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    add_set(parser, "evaluation.SETTING=VALUE", "override evaluation settings")
    parser.add_argument(
        "--schedule",
        choices=("own", "paper"),
        default="own",
        help="the step sizes of the config, or those of Finn et al. (2017): α, α/2, α/2, with "
        "batches of a fixed number of time steps, and the name paper (default: own)",
    )
    parser.add_argument(
        "--name",
        type=_name,
        help="write evaluation-NAME.json and so on instead; `metarl results` shows all evaluations",
    )


def _name(text: str) -> str:
    """Check a name for files."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be small letters and digits, with - between words, such as 15-queries"
        )
    return text


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    runs = [Run.open(path, tuple(options.set), options.trust_code) for path in options.runs]
    for run in runs:
        run.load()  # damaged runs are reported before any evaluation
    check_unique(runs)
    use_paper = options.schedule == PAPER
    name = options.name or (PAPER if use_paper else "")
    methods = [load_method(with_paper_schedule(run) if use_paper else run.config) for run in runs]
    for run, method in zip(runs, methods, strict=True):
        method.problem.check()
        run.check_data_hashes(method.problem.data_hashes)
    pairs = zip(runs, methods, strict=True)
    scores = [evaluate_and_print(run, method, console, name).scores for run, method in pairs]
    settings = [method.problem.evaluation_settings for method in methods]
    are_seeds = all(same_experiment(runs[0].config, run.config) for run in runs[1:])
    if len(runs) > 1 and are_seeds and all(other == settings[0] for other in settings):
        console.print(curve_table(f"all {len(runs)} runs", methods[0], summarise(scores)))
    return 0
