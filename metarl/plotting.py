"""Plots, in colours that colour-blind readers can tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metarl.evaluation import Quantity
from metarl.statistics import Summary

Curve = tuple[NDArray[Any], NDArray[Any]]

# Okabe and Ito's palette, each with a marker of its own for print
STYLES = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")]


def step_name(step: int) -> str:
    """`before adaptation`, `after 1 step`, `after 2 steps`, ..."""
    return "before adaptation" if step == 0 else f"after {step} step{'s' * (step > 1)}"


def plot_adaptation(
    curves: Mapping[str, Summary], quantity: Quantity, title: str, *paths: Path
) -> None:
    """Scores against gradient steps, in the form of Finn et al. (2017), figures 4 and 5.

    Args:
        curves: what to compare, by label. Who takes no step is drawn as a level.
        quantity: what the scores are.
        title: above the plot.
        paths: where to write; the ending decides the format.
    """
    figure, axes = _figure(title)
    steps = max(len(curve.centre) for curve in curves.values())
    for (label, curve), (colour, marker) in zip(curves.items(), _styles(curves), strict=True):
        if len(curve.centre) == 1 < steps:
            axes.axhline(curve.centre[0], color=colour, linestyle="--", label=label)
            axes.axhspan(curve.low[0], curve.high[0], color=colour, alpha=0.15, linewidth=0)
            continue
        x = np.arange(len(curve.centre))
        axes.plot(x, curve.centre, marker=marker, color=colour, label=label)
        axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("gradient steps on the new task")
    axes.set_ylabel(f"{quantity.axis} on unseen tasks")
    _scale(axes, quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, " · ".join(dict.fromkeys(c.meaning for c in curves.values())), paths)


def plot_training(
    curves: Mapping[str, Mapping[str, Sequence[Curve]]],
    quantity: Quantity,
    title: str,
    *paths: Path,
) -> None:
    """Scores in training against samples; a band spans the runs of an experiment.

    Args:
        curves: by label, then "before" and "after" adaptation: samples and scores of every run. A
            label without any keeps its colour for itself, as in the other plots.
        quantity: what the scores and the samples are.
        title: above the plot.
        paths: where to write; the ending decides the format.
    """
    figure, axes = _figure(title)
    for (label, parts), (colour, _) in zip(curves.items(), _styles(curves), strict=True):
        for part, style in (("before", ":" if parts["after"] else "-"), ("after", "-")):
            if not parts[part]:
                continue
            length = min(len(samples) for samples, _ in parts[part])
            window = max(1, length // 30)
            scores = np.stack([_smooth(values[:length], window) for _, values in parts[part]])
            samples = parts[part][0][0][:length] / 1e6
            name = f"{label}, {part} adaptation" if parts["after"] else label
            axes.plot(samples, scores.mean(axis=0), style, color=colour, label=name)
            low, high = scores.min(axis=0), scores.max(axis=0)
            axes.fill_between(samples, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel(f"{quantity.samples} in training, millions")
    axes.set_ylabel(f"{quantity.axis} on training tasks")
    _scale(axes, quantity)
    note = "mean over training seeds, band from the worst to the best; running mean"
    _finish(figure, axes, note, paths)


def plot_paths(
    paths_by_step: Mapping[int, NDArray[Any]], goal: NDArray[Any], title: str, *files: Path
) -> None:
    """Paths of a point before and after adaptation, as in Finn et al. (2017), figure 4.

    Args:
        paths_by_step: for each number of gradient steps, positions (B, H, 2), NaN after the end.
        goal: (2,).
        title: above the plot.
        files: where to write; the ending decides the format.
    """
    figure, axes = _figure(title)
    styles = zip(paths_by_step.items(), _styles(paths_by_step), strict=True)
    for (step, paths), (colour, marker) in styles:
        label = step_name(step)
        for number, path in enumerate(paths):
            name = label if number == 0 else None
            axes.plot(*path.T, color=colour, linewidth=1.2, alpha=0.7, label=name)
            last = path[np.isfinite(path[:, 0])][-1]
            axes.plot(*last, marker, color=colour, markersize=5)
    axes.plot(*goal, "*", color="black", markersize=14, label="goal", zorder=10)
    axes.plot(0, 0, "+", color="black", markersize=12, label="start", zorder=10)
    axes.set_aspect("equal")
    axes.set_xlabel("x, metres")
    axes.set_ylabel("y, metres")
    note = f"{len(paths)} trajectories for each; markers where they end"
    _finish(figure, axes, note, files, beside=True)


def _scale(axes: Axes, quantity: Quantity) -> None:
    """Errors differ by factors."""
    if not quantity.higher_is_better:
        axes.set_yscale("log")


def _styles(curves: Mapping[Any, Any]) -> list[tuple[str, str]]:
    return [STYLES[index % len(STYLES)] for index in range(len(curves))]


def _smooth(values: NDArray[Any], window: int) -> NDArray[Any]:
    """The mean of the last few values."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[Any] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _finish(
    figure: Figure, axes: Axes, note: str, paths: Sequence[Path], beside: bool = False
) -> None:
    axes.grid(alpha=0.3)
    if beside:  # where there is no empty corner
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(frameon=False)
    figure.supxlabel(note, fontsize=7, color="0.35")
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
