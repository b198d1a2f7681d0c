"""`metarl report`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.output import compare_runs, open_runs, print_line
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import show_status
from metarl.report.groups import group_by_tasks
from metarl.report.html import html_report


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the command with parsed options; return the exit status."""
    runs = open_runs(options.runs, options.trust_code)
    comparisons = [compare_runs(group, console) for group in group_by_tasks(runs)]
    out: Path = options.out
    try:
        with show_status(console, "rendering"):
            page = html_report(comparisons)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page)
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror}); choose another file with --out"
        ) from error
    print_line(console, f"report: {out}")
    return 0
