"""`metarl report`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_trust, describe
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import working

DESCRIPTION = """\
Write one HTML page about runs: table, adaptation and training curves, videos or pictures, configs;
a section for each family of tasks. It holds everything itself: mail it, or open it from disk."""

EXAMPLES = """\
examples:
  metarl report runs/quickstart runs/quickstart-pretrained
  metarl report runs/point-* --out point.html
  metarl report point_navigation half_cheetah_direction sinusoid
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _report)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page (default: report.html); one that is there already is replaced",
    )


def _report(options: argparse.Namespace, console: Console) -> int:
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.cli.comparison_output import load_by_tasks
    from metarl.report.html import html_report

    comparisons = load_by_tasks(options.runs, options.trust_code, console)
    out: Path = options.out
    try:
        with working(console, "filming"):
            page = html_report(comparisons)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page)
    except RuntimeError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror}); name another file with --out"
        ) from error
    console.print(f"report: {out}", highlight=False, soft_wrap=True)
    return 0
