"""Plots, in colours that colour-blind readers can tell apart."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from metarl.evaluation import Metric, Summary
from metarl.method import ADAPTATION_UNITS, EPISODES, GRADIENT_STEPS, AdaptationUnit

Curve = tuple[NDArray[Any], NDArray[Any]]
TrainingCurves = Mapping[str, Mapping[str, Sequence[Curve]]]  # by label, then "before" and "after"

# Okabe and Ito's palette, each with a marker and a dash of its own for print
STYLES = [
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", (0, (5, 1, 1, 1, 1, 1))),
    ("#E69F00", "v", (0, (1, 1))),
    ("#56B4E9", "P", (0, (8, 2))),
    ("#000000", "X", (0, (2, 2, 6, 2))),
]


@dataclass(frozen=True)
class Fit:
    """A wave, and what a network makes of it.

    Attributes:
        description: the wave in words.
        points: what it was shown, (K, 2).
        wave: the truth, (M, 2).
        curves: by number of gradient steps, (M, 2).
    """

    description: str
    points: NDArray[np.float64]
    wave: NDArray[np.float64]
    curves: dict[int, NDArray[np.float64]]


@dataclass(frozen=True)
class Classification:
    """An episode, and what a network makes of it.

    Attributes:
        description: the classes in words.
        support: one image of each class, (ways, H, W, C) in 0...1.
        queries: (M, H, W, C).
        labels: (M,).
        answers: after all gradient steps, (M,).
        steps: how many these were.
    """

    description: str
    support: NDArray[np.float64]
    queries: NDArray[np.float64]
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    steps: int


def stage_name(stage: int, unit: AdaptationUnit | None) -> str:
    """A stage of adaptation in words; in gradient steps for a method without adaptation."""
    return (unit or GRADIENT_STEPS).stage_name(stage)


def units_label(units: Collection[AdaptationUnit | None]) -> str:
    """The label of a plot's axis over stages counted in these units."""
    labels = [unit.axis_label for unit in ADAPTATION_UNITS.values() if unit in units]
    return ", or ".join(labels or [GRADIENT_STEPS.axis_label])


def meanings(curves: Mapping[str, Summary]) -> str:
    """What numbers and intervals are, in words; where they differ, of which labels."""
    labels: dict[str, list[str]] = {}
    for label, curve in curves.items():
        labels.setdefault(curve.meaning, []).append(label)
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{what} ({', '.join(whose)})" for what, whose in labels.items())


def plot_adaptation(
    curves: Mapping[str, Summary],
    metric: Metric,
    title: str,
    *paths: Path,
    counted: Collection[AdaptationUnit | None] = (),
    episodes: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Scores against adaptation, in the form of Finn et al. (2017), figures 4 and 5.

    Args:
        curves: what to compare, by label. Who takes no step is drawn as a level.
        metric: what the scores are.
        title: above the plot.
        paths: where to write; the ending decides the format.
        counted: what the adaptation of each is counted in.
        episodes: of the new task that each curve's stages had used, by label, where the curves
            adapt in different ways: the axis that means the same for all of them.
    """
    figure, axes = _figure(title)
    note = _adaptation(axes, curves, metric, counted, episodes)
    _finish(figure, axes, note, paths)


def plot_training(
    curves: TrainingCurves,
    metric: Metric,
    title: str,
    *paths: Path,
) -> None:
    """Scores in training against samples; a band spans the runs of an experiment.

    Args:
        curves: by label, then "before" and "after" adaptation: samples and scores of every run. A
            label without any keeps its colour for itself, as in the other plots.
        metric: what the scores and the samples are.
        title: above the plot.
        paths: where to write; the ending decides the format.
    """
    figure, axes = _figure(title)
    note = _training(axes, curves, metric)
    _finish(figure, axes, note, paths)


def plot_summary(
    adapted: Mapping[str, Summary],
    training: TrainingCurves,
    metric: Metric,
    title: str,
    *paths: Path,
    counted: Collection[AdaptationUnit | None] = (),
    episodes: Mapping[str, Sequence[int]] | None = None,
    published: Mapping[int, float] | None = None,
) -> None:
    """Adaptation and training of a family side by side, small enough for a page of all families.

    Args:
        adapted: as `plot_adaptation` takes them.
        training: as `plot_training` takes them; without any, there is one panel.
        metric: what the scores are.
        title: above both.
        paths: where to write; the ending decides the format.
        counted: as `plot_adaptation` takes them.
        episodes: as `plot_adaptation` takes them.
        published: what somebody else published, by stage; drawn where stages are gradient steps.
    """
    trained = any(part for parts in training.values() for part in parts.values())
    figure = Figure(figsize=(11.6 if trained else 7.2, 3.8), layout="constrained")
    panels = figure.subplots(1, 1 + trained, squeeze=False)[0]
    note = _adaptation(panels[0], adapted, metric, counted, episodes)
    if published and not episodes:
        panels[0].plot(*zip(*published.items(), strict=True), "kx:", label="published")
    if trained:
        note += "; in training, " + _training(panels[1], training, metric)
        if any(parts["before"] and parts["after"] for parts in training.values()):
            note += "; dotted, before adaptation"
    figure.suptitle(title)
    for axes in panels:
        axes.grid(alpha=0.3)
    # one for both panels, in which each has its colour, and beside them: there may be many
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside right center")
    figure.supxlabel(textwrap.fill(note, 75 * len(panels)), fontsize=8, color="0.35")
    for path in paths:
        figure.savefig(path, dpi=100)


def _adaptation(
    axes: Axes,
    curves: Mapping[str, Summary],
    metric: Metric,
    counted: Collection[AdaptationUnit | None],
    episodes: Mapping[str, Sequence[int]] | None,
) -> str:
    """Draw scores against adaptation, and say what the intervals are."""
    steps = max(len(curve.estimate) for curve in curves.values())
    styled = zip(curves.items(), _styles(curves), strict=True)
    for index, ((label, curve), (colour, marker, _)) in enumerate(styled):
        if len(curve.estimate) == 1 < steps:
            axes.axhline(curve.estimate[0], color=colour, linestyle="--", label=label)
            axes.axhspan(curve.low[0], curve.high[0], color=colour, alpha=0.15, linewidth=0)
            continue
        x = np.array(episodes[label]) if episodes else np.arange(len(curve.estimate))
        axes.plot(x, curve.estimate, _line(index), marker=marker, color=colour, label=label)
        axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    if episodes:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=-0.1)  # fewer than none there are not
        axes.set_xlabel(EPISODES.axis_label)
    else:
        axes.set_xlabel(units_label(counted))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{metric.axis} on unseen tasks")
    _scale(axes, metric)
    if metric.higher_is_better:  # a scale of its own kind otherwise
        _limit(axes, np.concatenate([curve.estimate for curve in curves.values()]))
    return f"{meanings(curves)}, drawn as a band"


def _limit(axes: Axes, estimates: NDArray[Any]) -> None:
    """Let no interval make the plot more than twice as high as the estimates are apart.

    Of two seeds an interval may be many times as wide as all that there is to be seen.
    """
    low, high = estimates.min(), estimates.max()
    shown, margin = axes.get_ylim(), (high - low) / 2
    if margin > 0.0:
        axes.set_ylim(max(shown[0], low - margin), min(shown[1], high + margin))


def _training(axes: Axes, curves: TrainingCurves, metric: Metric) -> str:
    """Draw scores in training, and say what the band is."""
    styled = zip(curves.items(), _styles(curves), strict=True)
    for index, ((label, parts), (colour, _, _)) in enumerate(styled):
        line = _line(index)
        for part, style in (("before", ":" if parts["after"] else line), ("after", line)):
            if not parts[part]:
                continue
            length = min(len(samples) for samples, _ in parts[part])
            window = max(1, length // 30)
            scores = np.stack([_smooth(values[:length], window) for _, values in parts[part]])
            samples = parts[part][0][0][:length]
            name = f"{label}, {part} adaptation" if parts["after"] else label
            axes.plot(samples, scores.mean(axis=0), style, color=colour, label=name)
            low, high = scores.min(axis=0), scores.max(axis=0)
            axes.fill_between(samples, low, high, color=colour, alpha=0.2, linewidth=0)
    # of a short training too, whose samples are none of millions
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NARROW NO-BREAK SPACE}"))
    axes.set_xlabel(f"{metric.samples} in training")
    axes.set_ylabel(f"{metric.axis} on training tasks")
    _scale(axes, metric)
    return "running mean; of several seeds their mean, and a band from the worst to the best"


def plot_paths(
    paths_by_stage: Mapping[str, NDArray[Any]], goal: NDArray[Any], title: str, *files: Path
) -> None:
    """Paths of a point before and after adaptation, as in Finn et al. (2017), figure 4.

    Args:
        paths_by_stage: positions (B, H, 2), NaN after the end, by the name of the stage.
        goal: (2,).
        title: above the plot.
        files: where to write; the ending decides the format.
    """
    figure, axes = _figure(title)
    styles = zip(paths_by_stage.items(), _styles(paths_by_stage), strict=True)
    for (label, paths), (colour, marker, _) in styles:
        end: dict[str, Any] = {
            "marker": marker,
            "markersize": 8,
            "markeredgecolor": "black",
            "color": colour,
        }
        axes.plot([], [], label=label, **end)
        for path in paths:
            path = path[np.isfinite(path[:, 0])]
            axes.plot(*path.T, color=colour, linewidth=1.0, alpha=0.5)
            axes.plot(*path[-1], zorder=5, **end)  # above every path, of later stages as well
    # hollow, so that where a path ends can be seen on the goal itself
    axes.plot(
        *goal, "o", markerfacecolor="none", color="black", markersize=16, label="goal", zorder=10
    )
    axes.plot(0, 0, "+", color="black", markersize=12, label="start", zorder=10)
    axes.set_aspect("equal")
    axes.set_xlabel("x, metres")
    axes.set_ylabel("y, metres")
    note = f"{len(paths)} trajectories of each; a marker where each ends"
    _finish(figure, axes, note, files, beside=True)


def plot_fits(fits: Mapping[str, Fit], title: str, *files: Path) -> None:
    """Waves as networks see them before and after adaptation (Finn et al. 2017, figures 2 and 3).

    Args:
        fits: of the same wave, by label; a panel for each.
        title: above the plot.
        files: where to write; the ending decides the format.
    """
    figure = Figure(figsize=(2.6 + 4.2 * len(fits), 4.2), layout="constrained")
    panels = figure.subplots(1, len(fits), sharey=True, squeeze=False)[0]
    for axes, (label, fit) in zip(panels, fits.items(), strict=True):
        axes.plot(*fit.wave.T, color="black", linewidth=1.0, label="truth")
        styles = zip(fit.curves.items(), _styles(fit.curves), strict=True)
        for (step, curve), (colour, _, dash) in styles:
            axes.plot(*curve.T, color=colour, linestyle=dash, label=stage_name(step, None))
        axes.plot(*fit.points.T, "k^", markersize=7, label="points shown", zorder=10)
        axes.set_title(label)
        axes.set_xlabel("x")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("y")
    lines = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(lines.values(), lines.keys(), frameon=False, loc="outside right center")
    figure.suptitle(title)
    _save(figure, files)


def plot_classification(seen: Classification, title: str, *files: Path) -> None:
    """A sheet with an episode: the support images, and the queries with what was said of them.

    Args:
        seen: the episode. Each class is a column; mistakes have a frame, and the class that was
            answered.
        title: above the sheet.
        files: where to write; the ending decides the format.
    """
    ways = len(seen.support)
    columns = [np.flatnonzero(seen.labels == label) for label in range(ways)]
    depth = max(len(column) for column in columns)
    figure = Figure(figsize=(max(4.8, 0.9 * ways), 1.2 + 0.95 * (depth + 1)), layout="constrained")
    panels = figure.subplots(depth + 1, ways, squeeze=False)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for label, column in enumerate(columns):
        _picture(panels[0, label], seen.support[label])
        panels[0, label].set_title(str(label + 1), fontsize=9)
        for row, query in enumerate(column):
            axes = panels[row + 1, label]
            _picture(axes, seen.queries[query])
            if seen.answers[query] != label:
                axes.spines[:].set(visible=True, color="#D55E00", linewidth=2.5)
                axes.set_xlabel(f"taken for {seen.answers[query] + 1}", fontsize=8, color="#D55E00")
    panels[0, 0].set_ylabel("support", fontsize=8)
    panels[1, 0].set_ylabel("queries", fontsize=8)
    right = int((seen.answers == seen.labels).sum())
    after = f" after {seen.steps} gradient steps" if seen.steps else ""
    note = f"{right} of {len(seen.labels)} right{after}; mistakes framed"
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(note, fontsize=8, color="0.35")
    _save(figure, files)


def _picture(axes: Axes, image: NDArray[Any]) -> None:
    if image.shape[-1] == 1:  # strokes are ones: dark on light, as they were written
        axes.imshow(1.0 - image[..., 0], cmap="gray", vmin=0.0, vmax=1.0)
    else:
        axes.imshow(image)


def _scale(axes: Axes, metric: Metric) -> None:
    """Errors differ by factors."""
    if not metric.higher_is_better:
        axes.set_yscale("log")


def _styles(curves: Mapping[Any, Any]) -> list[tuple[str, str, Any]]:
    """A colour, a marker and a dash for each; where colours recur, it is with other markers."""
    count = len(STYLES)
    others = [STYLES[(index + index // count) % count] for index in range(len(curves))]
    return [
        (STYLES[index % count][0], marker, dash) for index, (_, marker, dash) in enumerate(others)
    ]


def _line(index: int) -> str:
    """Of a curve by its number: dashed where colours recur, in the one legend of all panels too."""
    return "-" if index < len(STYLES) else "--"


def _smooth(values: NDArray[Any], window: int) -> NDArray[Any]:
    """The mean of the last few values."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[Any] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
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
    figure.supxlabel(textwrap.fill(note, 75), fontsize=8, color="0.35")
    _save(figure, paths)


def _save(figure: Figure, paths: Sequence[Path]) -> None:
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
