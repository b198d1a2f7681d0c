"""`metarl report`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_trust, set_help
from metarl.cli.output import compare_runs, open_runs, print_line
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import show_status
from metarl.report.groups import group_by_tasks
from metarl.report.html import html_report

DESCRIPTION = """\
Write a self-contained HTML report: tables, adaptation and training curves, videos or plots of
predictions, and configs, with one section per family of tasks."""

EXAMPLES = """\
examples:
  metarl report runs/quickstart runs/quickstart-pretrained
  metarl report runs/point-* --out point.html
  metarl report point_navigation half_cheetah_direction sinusoid
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _report)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="output file (default: report.html); an existing one is replaced",
    )


def _report(options: argparse.Namespace, console: Console) -> int:
    runs = open_runs(options.runs, options.trust_code)
    comparisons = [compare_runs(group, console) for group in group_by_tasks(runs)]
    out: Path = options.out
    try:
        with show_status(console, "rendering"):
            page = html_report(comparisons)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page)
    except RuntimeError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror}); choose another file with --out"
        ) from error
    print_line(console, f"report: {out}")
    return 0
