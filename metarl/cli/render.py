"""`metarl render`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_run, add_trust, describe

DESCRIPTION = """\
Film a policy before and after it adapted to a task, side by side: an MP4, and a GIF for a README.
For point navigation also a picture of the paths. The actions are drawn as in training. Needs no
display: MuJoCo renders through EGL or OSMesa.

Of a run about sine waves it draws a wave and its fits, of one about images an episode and its
mistakes."""

EXAMPLES = """\
examples:
  metarl render point_navigation                     a policy that comes with the package
  metarl render runs/mine --task 0.3 -0.4            a task of your choice
  metarl render runs/cheetah --task -1 --steps 0 1 3
  metarl render runs/cheetah --live                  in a window
  metarl render runs/sinusoid --task 3.0 1.5         amplitude and phase; writes fit.png
  metarl render runs/omniglot_5way_1shot             writes episode.png
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _render)
    add_run(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--task",
        type=float,
        nargs="+",
        metavar="NUMBER",
        help="goal, velocity, direction, or amplitude and phase (default: the first of the "
        "evaluation's unseen tasks)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        metavar="K",
        help="after how many gradient steps to look (default: 0 1 3; 0 1 10 of waves)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: into the run)"
    )
    parser.add_argument(
        "--live", action="store_true", help="show it in a window instead of writing files"
    )


def _render(options: argparse.Namespace, console: Console) -> int:
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.cli.render_output import render

    return render(options, console)
