"""`metarl compare`."""

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import OTHER_FOLDER
from metarl.cli.output import compare_runs, open_runs, print_comparison
from metarl.io import check_writable, report_os_errors, write_atomically
from metarl.progress import print_line, show_status
from metarl.report.comparison import (
    PLOT_NAMES,
    check_many_steps,
    latex,
    markdown,
    numbers,
    with_steps_to_match,
    write_plots,
)
from metarl.report.groups import ExperimentGroup
from metarl.report.plots import plot_fits
from metarl.report.predictions import is_curve, predict_curve
from metarl.report.text_tables import csv_table

FORMATS = ("png", "svg", "pdf")
PLOTS = [f"{name}.{ending}" for name in PLOT_NAMES for ending in FORMATS]
FITS = "fits.png"


def run(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out
    # before evaluations, which take minutes
    check_writable(out, OTHER_FOLDER, is_folder=True)
    runs = open_runs(options.runs, options.trust_code)
    if options.many_steps:
        check_many_steps(runs)
    groups = compare_runs(runs, console)
    if options.many_steps:
        with show_status(console, "fine-tuning for many steps"):
            groups = with_steps_to_match(groups, options.many_steps)
    with report_os_errors(f"cannot write {out}", OTHER_FOLDER):
        out.mkdir(parents=True, exist_ok=True)
        for file in (*PLOTS, FITS):  # an earlier comparison may have had more of them
            (out / file).unlink(missing_ok=True)
        write_atomically(out / "comparison.md", markdown(groups))
        write_atomically(out / "comparison.tex", latex(groups))
        write_atomically(out / "comparison.csv", csv_table(numbers(groups)))
        plots = [*chain(*write_plots(groups, out, *FORMATS).values()), *_plot_fits(groups, out)]
    print_comparison(console, groups)
    print_line(console, f"tables: {out / 'comparison.md'}, .tex and .csv")
    for plot in plots:
        print_line(console, f"plot: {plot}")
    return 0


def _plot_fits(groups: Sequence[ExperimentGroup], out: Path) -> list[Path]:
    """Plot the predictions of all experiments on one task, if it is a function of one variable."""
    runs = {group.label: group.runs[0] for group in groups}
    if not all(is_curve(group.method.problem) for group in groups):
        return []
    # the first test task, which is the same for all of them
    fits = {label: predict_curve(run) for label, run in runs.items()}
    plot_fits(fits, next(iter(fits.values())).description, out / FITS)
    return [out / FITS]
