"""`metarl compare`."""

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_trust, set_help
from metarl.cli.output import compare_runs, open_runs, print_comparison, print_line
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import show_status
from metarl.report.comparison import markdown, with_steps_to_match, write_plots
from metarl.report.groups import ExperimentGroup
from metarl.report.plots import plot_fits
from metarl.report.predictions import is_sinusoid, predict_wave

DESCRIPTION = """\
Compare runs: return, error or accuracy against gradient steps on the same held-out tasks, and
against environment steps or examples in training. Runs that differ only in their seed are one
experiment.

Prints the scores, and the paired differences between a meta-learner and the methods that are
comparable with it. Writes comparison.md, adaptation.png, adaptation.svg, training.png and
training.svg into a directory; for sinusoid runs also fits.png. Runs without an evaluation are
evaluated first."""

EXAMPLES = """\
examples:
  metarl compare runs/quickstart runs/quickstart-pretrained runs/quickstart-oracle
  metarl compare runs/point-* --out results/point --many-steps 50
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _compare)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--many-steps",
        type=int,
        metavar="K",
        help="also count the gradient steps, up to K, that pretrained and random policies need to "
        "match MAML after one step",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="output directory (default: comparison); files of an earlier comparison are replaced",
    )


def _compare(options: argparse.Namespace, console: Console) -> int:
    if options.many_steps is not None and options.many_steps < 1:
        raise UserError(f"--many-steps must be at least 1, not {options.many_steps}")
    groups = compare_runs(open_runs(options.runs, options.trust_code), console)
    if options.many_steps:
        with show_status(console, "fine-tuning for many steps"):
            groups = with_steps_to_match(groups, options.many_steps)
    out: Path = options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "comparison.md", markdown(groups))
        plots = [*chain(*write_plots(groups, out, "png", "svg").values()), *_plot_fits(groups, out)]
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror}); choose another directory with --out"
        ) from error
    print_comparison(console, groups)
    for plot in plots:
        print_line(console, f"plot: {plot}")
    return 0


def _plot_fits(groups: Sequence[ExperimentGroup], out: Path) -> list[Path]:
    """Plot the predictions of all experiments for one wave, if they are sinusoid runs."""
    runs = {group.label: group.runs[0] for group in groups}
    if not all(is_sinusoid(run) for run in runs.values()):
        return []
    fits = {label: predict_wave(run) for label, run in runs.items()}
    plot_fits(fits, next(iter(fits.values())).description, out / "fits.png")
    return [out / "fits.png"]
