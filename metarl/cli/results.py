"""`metarl results`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_trust, describe
from metarl.errors import UserError

DESCRIPTION = """\
Write a page of results in Markdown out of run directories: a section for each family of tasks, with
a table beside the published figures, a picture of adaptation and training, and by which command,
commit and hardware each run was made. Runs that differ in their seed alone are summed up together,
and shown each. Every evaluation of a run has a row (`metarl evaluate RUN --set … --name NAME`).

What a person concludes stands in a folder of notes, and is included: `introduction.md`, and a file
for each section, by the name of its picture. Where a config sets evaluation.step_sizes, the paper's
schedule stands beside its own (`metarl evaluate --schedule paper`).

A published run keeps its config, provenance and scores, and its training curve with at most 100
points, but no weights: about 50 KB."""

EXAMPLES = """\
examples:
  metarl results runs/point-1 runs/point-2 --publish results
  metarl results results/* configs/trained/* --out docs/results.md --notes docs/notes
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _results)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results.md"),
        metavar="FILE",
        help="the page (default: results.md); its pictures go into a folder of its name",
    )
    parser.add_argument(
        "--notes",
        type=Path,
        metavar="DIR",
        help="where the notes are (default: none are included)",
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="copy each run to DIR/NAME without its weights, instead of writing the page",
    )


def _results(options: argparse.Namespace, console: Console) -> int:
    if options.notes and not options.notes.is_dir():
        raise UserError(f"there is no folder {options.notes}; --notes names the one with the notes")
    if options.out.suffix != ".md":
        raise UserError(f"--out {options.out} must end in .md: the page is Markdown")
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.cli.comparison_output import load_all
    from metarl.report.publish import publish
    from metarl.report.results_page import write_page
    from metarl.runs.run import Run

    if options.publish:
        for path in options.runs:
            folder = options.publish / path.name
            publish(Run.open(path, trust_code=options.trust_code), folder)
            console.print(f"wrote {folder}", highlight=False, soft_wrap=True)
        return 0
    evaluated = load_all(options.runs, options.trust_code, console)
    for file in write_page(evaluated, options.out, options.notes):
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
    return 0
