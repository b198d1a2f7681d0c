"""`metarl results`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_trust, set_help
from metarl.cli.output import all_evaluations, open_runs, print_line
from metarl.errors import UserError
from metarl.report.publish import publish
from metarl.report.results_page import write_page
from metarl.runs.run import Run

DESCRIPTION = """\
Write a results page in Markdown: for each family of tasks a table with the published figures, a
plot of adaptation and training, and the command, commit and hardware of each run. Runs that differ
only in their seed are aggregated, and also listed. Every evaluation of a run has a row (`metarl
evaluate RUN --set … --name NAME`).

Hand-written notes are included from a folder: `introduction.md`, and one file per section, named
like its plot. If a config sets evaluation.step_sizes, the schedule of the paper is shown as well
(`metarl evaluate --schedule paper`).

A published run has its config, provenance and scores, and a training curve of at most 100 points,
but no weights: about 50 KB."""

EXAMPLES = """\
examples:
  metarl results runs/point-1 runs/point-2 --publish results
  metarl results results/* configs/trained/* --out docs/results.md --notes docs/notes
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _results)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results.md"),
        metavar="FILE",
        help="the page (default: results.md); its plots go into a folder of the same name",
    )
    parser.add_argument(
        "--notes",
        type=Path,
        metavar="DIR",
        help="folder of hand-written notes (default: none)",
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="copy each run to DIR/NAME without its weights, instead of writing the page",
    )


def _results(options: argparse.Namespace, console: Console) -> int:
    if options.notes and not options.notes.is_dir():
        raise UserError(f"there is no folder {options.notes}; --notes must name one")
    if options.out.suffix != ".md":
        raise UserError(f"--out {options.out} must end in .md: the page is Markdown")
    if options.publish:
        for path in options.runs:
            folder = options.publish / path.name
            publish(Run.open(path, trust_code=options.trust_code), folder)
            print_line(console, f"wrote {folder}")
        return 0
    evaluations = all_evaluations(open_runs(options.runs, options.trust_code), console)
    for file in write_page(evaluations, options.out, options.notes):
        print_line(console, f"wrote {file}")
    return 0
