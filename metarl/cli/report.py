"""`metarl report`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import OTHER_FILE
from metarl.cli.output import compare_runs, open_runs
from metarl.io import check_writable, report_os_errors, write_atomically
from metarl.progress import print_line, show_status
from metarl.report.groups import group_by_tasks
from metarl.report.html import html_report


def run(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out
    check_writable(out, OTHER_FILE)  # before evaluations, which take minutes
    runs = open_runs(options.runs, options.trust_code)
    comparisons = [compare_runs(group, console) for group in group_by_tasks(runs)]
    with report_os_errors(f"cannot write {out}", OTHER_FILE):
        with show_status(console, "rendering"):
            page = html_report(comparisons)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page)
    print_line(console, f"report: {out}")
    return 0
