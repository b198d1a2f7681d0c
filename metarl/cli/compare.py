"""`metarl compare`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from metarl.cli.arguments import add_data, add_runs, add_trust, describe
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import working

if TYPE_CHECKING:
    from metarl.report.groups import ExperimentGroup

DESCRIPTION = """\
Put runs side by side: return, error or accuracy against gradient steps on the same unseen tasks,
and against environment steps or examples in training. Runs that differ in their seed alone count as
one experiment.

Prints the scores, and by how much a meta-learner is above each method that adapts as it does, or
not at all, on the same tasks; and writes comparison.md, adaptation.png, adaptation.svg,
training.png and training.svg into a directory of their own; of sine waves also fits.png. A run
that was not evaluated yet is evaluated first."""

EXAMPLES = """\
examples:
  metarl compare runs/quickstart runs/quickstart-pretrained runs/quickstart-oracle
  metarl compare runs/point-* --out results/point --many-steps 50
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _compare)
    add_runs(parser)
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--many-steps",
        type=int,
        metavar="K",
        help="also find out how many gradient steps, up to K, take pretrained and random runs to "
        "where MAML is after one",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="where to write (default: comparison); what an earlier comparison wrote is replaced",
    )


def _compare(options: argparse.Namespace, console: Console) -> int:
    if options.many_steps is not None and options.many_steps < 1:
        raise UserError(f"--many-steps must be at least 1, not {options.many_steps}")
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.cli.comparison_output import load, show
    from metarl.report.comparison import markdown, with_steps_to_match, write_plots
    from metarl.runs.run import Run

    runs = [Run.open(path, trust_code=options.trust_code) for path in options.runs]
    entries = load(runs, console)
    if options.many_steps:
        with working(console, "taking many steps"):
            entries = with_steps_to_match(entries, options.many_steps)
    out: Path = options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "comparison.md", markdown(entries))
        plots = [
            path for paths in write_plots(entries, out, "png", "svg").values() for path in paths
        ]
        plots += _fits(entries, out)
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror}); name another directory with --out"
        ) from error
    show(console, entries)
    for plot in plots:
        console.print(f"plot: {plot}", highlight=False, soft_wrap=True)
    return 0


def _fits(entries: Sequence["ExperimentGroup"], out: Path) -> list[Path]:
    """What each says of one wave, if that is what they are about."""
    from metarl.report.plots import plot_fits
    from metarl.report.predictions import is_sinusoid, predict_wave

    runs = {entry.label: entry.runs[0] for entry in entries}
    if not all(is_sinusoid(run) for run in runs.values()):
        return []
    fits = {label: predict_wave(run) for label, run in runs.items()}
    plot_fits(fits, next(iter(fits.values())).description, out / "fits.png")
    return [out / "fits.png"]
