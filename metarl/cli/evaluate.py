"""`metarl evaluate`."""

import argparse
import re

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_set, add_trust, describe

DESCRIPTION = """\
Measure the return, error or accuracy after 0, 1, 2, ... gradient steps on tasks that were never
trained on. The tasks are fixed by a seed of their own, so that every method meets the same ones,
and evaluating twice gives the same numbers. Writes evaluation.json, evaluation.csv and
adaptation.png into each run. With --name, these stand beside those that are there.

Runs that differ in their seed alone are summed up together, by their mean with an interval over
runs."""

EXAMPLES = """\
examples:
  metarl evaluate runs/quickstart
  metarl evaluate point_navigation                 a policy that comes with the package
  metarl evaluate runs/point-1 runs/point-2 runs/point-3
  metarl evaluate runs/point-1 --set evaluation.tasks=200 --set evaluation.step_sizes=[0.5,0.5]
  metarl evaluate runs/point-1 --schedule paper    beside the config's own step sizes
  metarl evaluate runs/omniglot --data data --set evaluation.queries=15 --name 15-queries
  metarl evaluate runs/omniglot --data data --set evaluation.transductive=false --name alone
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _evaluate)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    add_set(parser, "evaluation.SETTING=VALUE", "evaluate otherwise than the run's config says")
    parser.add_argument(
        "--schedule",
        choices=("own", "paper"),
        default="own",
        help="the config's own step sizes, or those of Finn et al. (2017): α, α/2, α/2, with "
        "batches of so many time steps; these are named paper (default: own)",
    )
    parser.add_argument(
        "--name",
        type=_name,
        help="write into evaluation-NAME.json and so on, beside what the run's config asks for; "
        "`metarl results` shows it too",
    )


def _name(text: str) -> str:
    """A name for files, or a complaint."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be small letters and digits, with - between words, such as 15-queries"
        )
    return text


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.cli.evaluation_output import evaluate_and_print, table
    from metarl.intervals import summarise
    from metarl.method import load_method
    from metarl.report.evaluations import PAPER, with_paper_schedule
    from metarl.report.groups import check_unique, same_experiment
    from metarl.runs.run import Run

    runs = [Run.open(path, tuple(options.set), options.trust_code) for path in options.runs]
    for run in runs:
        run.load()  # what is damaged is found before any work
    check_unique(runs)
    paper = options.schedule == PAPER
    name = options.name or (PAPER if paper else "")
    methods = [load_method(with_paper_schedule(run) if paper else run.config) for run in runs]
    for run, method in zip(runs, methods, strict=True):
        method.problem.check()
        run.check_data_hashes(method.problem.data_hashes)
    pairs = zip(runs, methods, strict=True)
    curves = [evaluate_and_print(run, method, console, name).scores for run, method in pairs]
    settings = [method.problem.evaluation_settings for method in methods]
    seeds = all(same_experiment(runs[0].config, run.config) for run in runs[1:])
    if len(runs) > 1 and seeds and all(other == settings[0] for other in settings):
        summary = summarise(curves)
        console.print(table(f"all {len(runs)} runs", methods[0], summary))
    return 0
