"""Plots, in colours that colour-blind readers can tell apart."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from metarl.evaluation import AdaptationCurve

# Okabe and Ito's palette, each with a marker of its own for print
STYLES = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")]


def plot_adaptation(curves: Mapping[str, AdaptationCurve], title: str, path: Path) -> None:
    """Return against gradient steps, in the form of Finn et al. (2017), figures 4 and 5.

    Args:
        curves: what to compare, by label.
        title: above the plot.
        path: where to write; the ending decides the format.
    """
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for (label, curve), (colour, marker) in zip(curves.items(), STYLES, strict=False):
        steps = np.arange(len(curve.mean))
        axes.plot(steps, curve.mean, marker=marker, color=colour, label=label)
        low, high = curve.mean - curve.interval, curve.mean + curve.interval
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_xticks(steps)
    tasks = len(next(iter(curves.values())).tasks)
    axes.set_xlabel("gradient steps on the new task")
    axes.set_ylabel(f"return (mean of {tasks} unseen tasks, 95% interval)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
