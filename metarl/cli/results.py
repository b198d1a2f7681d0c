"""`metarl results`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import OTHER_FILE
from metarl.cli.output import all_evaluations, open_runs
from metarl.errors import UserError
from metarl.io import check_writable
from metarl.progress import print_line, show_status
from metarl.report.evaluations import evaluation_names, stored_evaluation
from metarl.report.publish import check_empty, publish
from metarl.report.results_page import write_page
from metarl.report.verification import verify
from metarl.runs.run import Run


def run(options: argparse.Namespace, console: Console) -> int:
    if options.notes and not options.notes.is_dir():
        raise UserError(f"there is no folder {options.notes}; --notes must name one")
    if options.out.suffix != ".md":
        raise UserError(f"--out {options.out} must end in .md: the page is Markdown")
    if options.weights and not options.publish:
        raise UserError("--weights copies the weights of published runs; add --publish DIR")
    if options.publish and (options.verify or options.notes):
        raise UserError("--publish copies runs; use --verify and --notes without it")
    if options.verify and options.notes:
        raise UserError("--verify writes no page; use --notes without it")
    if options.publish:
        return _publish(options, console)
    if not options.verify:  # before evaluations, which take minutes
        check_writable(options.out, OTHER_FILE)
        check_writable(options.out.with_suffix(""), OTHER_FILE, is_folder=True)
    runs = open_runs(options.runs, options.trust_code)
    if options.verify:
        return _verify(runs, console)
    evaluations = all_evaluations(runs, console)
    for file in write_page(evaluations, options.out, options.notes):
        print_line(console, f"wrote {file}")
    return 0


def _publish(options: argparse.Namespace, console: Console) -> int:
    """Copy runs into folders of their names; all are checked before the first is written."""
    check_writable(options.publish, "; choose another directory", is_folder=True)
    runs = open_runs(options.runs, options.trust_code)
    sources: dict[Path, Path] = {}
    for path in options.runs:
        folder = options.publish / path.name
        check_empty(folder)
        if folder in sources:
            raise UserError(
                f"{sources[folder]} and {path} would both be published to {folder}; publish them "
                "to separate directories"
            )
        sources[folder] = path
    for run, folder in zip(runs, sources, strict=True):
        publish(run, folder, options.weights)
        print_line(console, f"wrote {folder}")
    return 0


def _verify(runs: Sequence[Run], console: Console) -> int:
    """Evaluate runs again, and compare with their stored evaluations."""
    evaluations = []
    for run in runs:
        run.load()  # weights that are missing are reported before any evaluation
        stored = {name: stored_evaluation(run, name) for name in evaluation_names(run)}
        present = [(name, evaluation) for name, evaluation in stored.items() if evaluation]
        if not present:
            raise UserError(
                f"{run.path} has no evaluation of its weights to verify; evaluate it: "
                f"metarl evaluate {run.path}"
            )
        evaluations += present
    holds = True
    for name, evaluation in evaluations:
        path = evaluation.run.path
        with show_status(console, f"evaluating {path}"):
            result = verify(evaluation)
        print_line(console, f"{path}{f' ({name})' if name else ''} {result}")
        holds &= result.holds
    return 0 if holds else 1
