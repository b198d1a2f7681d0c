"""`metarl results`."""

import argparse

from rich.console import Console

from metarl.cli.output import all_evaluations, open_runs
from metarl.errors import UserError
from metarl.progress import print_line
from metarl.report.publish import publish
from metarl.report.results_page import write_page
from metarl.runs.run import Run


def run(options: argparse.Namespace, console: Console) -> int:
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
