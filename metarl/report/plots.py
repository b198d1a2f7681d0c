"""Plots of adaptation, training, paths and predictions, in a colour-blind safe palette.

A plot has a title, and is written to files (`paths`), whose suffixes decide the format.

matplotlib is imported by the first figure: every training imports this module, and few draw.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation import Metric, Summary
from metarl.method import EPISODES, AdaptationUnit
from metarl.report.captions import describe_intervals, stage_name, units_label
from metarl.report.training_curves import TrainingCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# the palette of Okabe and Ito; markers and dashes tell curves apart in print
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
    """Predictions for a function of one variable.

    Attributes:
        description: the task in words.
        points: the support points, (K, 2).
        truth: points of the true function, (M, 2), as a line if it is a `function`; otherwise the
            query points.
        curves: predictions (M, 2), by number of gradient steps.
    """

    description: str
    points: NDArray[np.float64]
    truth: NDArray[np.float64]
    curves: dict[int, NDArray[np.float64]]
    function: bool = True


@dataclass(frozen=True)
class Classification:
    """Predictions for a few-shot classification episode.

    Attributes:
        description: the classes in words.
        support: one image of each class, (ways, H, W, C) in 0...1.
        queries: (M, H, W, C).
        labels: (M,).
        predictions: after the last gradient step, (M,).
        steps: the number of gradient steps.
    """

    description: str
    support: NDArray[np.float64]
    queries: NDArray[np.float64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    steps: int


def plot_adaptation(
    curves: Mapping[str, Summary],
    metric: Metric,
    title: str,
    *paths: Path,
    units: Collection[AdaptationUnit | None] = (),
    episodes: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Plot scores against adaptation, as in figures 4 and 5 of Finn et al. (2017).

    Args:
        curves: by label. Methods without adaptation are drawn as a horizontal line.
        metric: of the scores.
        units: the units of adaptation of all curves.
        episodes: the x values by label: the episodes of the new task used before each stage. None
            for the number of the stage.
    """
    figure, axes = _figure(title)
    note = _plot_adaptation(axes, curves, metric, units, episodes)
    _finish(figure, axes, note, paths, legend_outside=len(curves) > 1)


def plot_training(curves: TrainingCurves, metric: Metric, title: str, *paths: Path) -> None:
    """Plot training scores against samples, and against minutes.

    Lines are means over the runs of an experiment, shaded from the smallest to the largest value.

    Args:
        curves: by label, then "before" and "after" adaptation: those of every run. Labels without
            curves keep their colours, so that they match the other plots.
        metric: of the scores and the samples.
    """
    figure = _new_figure(12.0, 4.2)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    _plot_training(left, curves, metric)
    note = _plot_training(right, curves, metric, by_minutes=True)
    left.grid(alpha=0.3)
    right.set_ylabel("")
    _finish(figure, right, note, paths, legend_outside=True)


def plot_summary(
    adapted: Mapping[str, Summary],
    training: TrainingCurves,
    metric: Metric,
    title: str,
    path: Path,
    *,
    rows: Sequence[Sequence[str]],
    units: Mapping[str, AdaptationUnit | None],
    episodes: Mapping[str, Sequence[int]],
    published: Mapping[int, float] | None = None,
) -> None:
    """Plot adaptation, and training by samples and by minutes, side by side.

    A few methods are in each row.

    Args:
        adapted: see `plot_adaptation`.
        training: see `plot_training`. Curves after adaptation are drawn where there are any.
        metric: of the scores.
        title: of the figure.
        path: the output file.
        rows: the labels of each row; the first of them is the one that has published scores.
        units: the unit of adaptation of each method.
        episodes: see `plot_adaptation`; the axis of rows with a method that counts episodes.
        published: published scores by number of gradient steps.
    """
    trained = any(part for parts in training.values() for part in parts.values())
    figure = _new_figure(15.0 if trained else 7.2, 0.8 + 3.2 * len(rows))
    training_note = ""
    for labels, panels in zip(
        rows, figure.subplots(len(rows), 3 if trained else 1, squeeze=False), strict=True
    ):
        curves = {label: adapted[label] for label in labels}
        row_units = {units[label] for label in labels}
        x = episodes if any(unit and unit.counts_episodes for unit in row_units) else None
        _plot_adaptation(panels[0], curves, metric, row_units, x, published)
        if trained:
            last = {
                label: {
                    "before": [],
                    "after": training[label]["after"] or training[label]["before"],
                }
                for label in labels
            }
            _plot_training(panels[1], last, metric)
            note = "; training: " + _plot_training(panels[2], last, metric, True)
            training_note = max(training_note, note, key=len)  # that of a row with several seeds
        for axes in panels:
            axes.grid(alpha=0.3)
        handles, names = panels[0].get_legend_handles_labels()
        panels[-1].legend(
            handles, names, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
    figure.suptitle(title)
    note = f"{describe_intervals(adapted)}, shaded" + training_note
    figure.supxlabel(textwrap.fill(note, 75 * (1 + trained)), fontsize=8, color="0.35")
    figure.savefig(path, dpi=100)


def _plot_adaptation(
    axes: Axes,
    curves: Mapping[str, Summary],
    metric: Metric,
    units: Collection[AdaptationUnit | None],
    episodes: Mapping[str, Sequence[int]] | None,
    published: Mapping[int, float] | None = None,
) -> str:
    """Plot scores against adaptation, and return a description of the shaded intervals."""
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
    # published scores are by gradient step; they are drawn at the episodes of the first curve
    published = dict(published or {})
    if episodes:  # which may be fewer than the published stages
        first = episodes[next(iter(curves))]
        published = {first[k]: score for k, score in published.items() if k < len(first)}
    if published:
        axes.plot([*published], [*published.values()], "kx:", label="published")
    if episodes:
        # logarithmic, but linear below one episode: the first stage uses none at all
        from matplotlib.ticker import ScalarFormatter

        axes.set_xscale("symlog", linthresh=1.0)
        axes.xaxis.set_major_formatter(ScalarFormatter())  # 1 and 10, not powers of ten
        axes.set_xlim(left=-0.1)
        axes.set_xlabel(EPISODES.axis_label)
    else:
        axes.set_xlabel(units_label(units))
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{metric.axis} on held-out tasks")
    _set_scale(axes, metric)
    if metric.higher_is_better:  # errors have a log scale
        estimates = [curve.estimate for curve in curves.values()]
        _limit_y(axes, np.concatenate([*estimates, np.array([*published.values()])]))
    return f"{describe_intervals(curves)}, shaded"


def plot_rewards(rewards: Mapping[str, NDArray[Any]], title: str, *paths: Path) -> None:
    """Plot the mean reward at each time step of an episode.

    Args:
        rewards: (H,) by name of the stage; of many stages, the first two and the last are drawn.
    """
    names = [*rewards] if len(rewards) <= len(STYLES) else [*rewards][:2] + [*rewards][-1:]
    figure, axes = _figure(title)
    for name, (colour, _, dash) in zip(names, _styles(dict.fromkeys(names)), strict=True):
        axes.plot(rewards[name], color=colour, linestyle=dash, label=name)
    axes.set_xlabel("time step")
    axes.set_ylabel("reward on held-out tasks")
    _finish(figure, axes, "mean over the episodes of all tasks", paths, legend_outside=True)


def _limit_y(axes: Axes, estimates: NDArray[Any]) -> None:
    """Limit the y axis to twice the range of the estimates.

    An interval over two seeds may be many times as wide as that range.
    """
    low, high = estimates.min(), estimates.max()
    limits, margin = axes.get_ylim(), (high - low) / 2
    if margin > 0.0:
        axes.set_ylim(max(limits[0], low - margin), min(limits[1], high + margin))


def _plot_training(
    axes: Axes, curves: TrainingCurves, metric: Metric, by_minutes: bool = False
) -> str:
    """Plot scores in training, and return a description of the shaded range."""
    styled = zip(curves.items(), _styles(curves), strict=True)
    for index, ((label, parts), (colour, _, _)) in enumerate(styled):
        line = _line(index)
        for part, style in (("before", ":" if parts["after"] else line), ("after", line)):
            if not parts[part]:
                continue
            used = [curve.minutes if by_minutes else curve.samples for curve in parts[part]]
            # on a common axis, where all seeds have scores: one that was stopped early shortens
            # the mean, rather than shift it where it ends
            limits = max(values[0] for values in used), min(values[-1] for values in used)
            x = np.linspace(*limits, max(len(values) for values in used))
            scores = np.stack(
                [
                    np.interp(x, values, curve.running_mean(1 / 30))
                    for values, curve in zip(used, parts[part], strict=True)
                ]
            )
            name = f"{label}, {part} adaptation" if parts["after"] else label
            axes.plot(x, scores.mean(axis=0), style, color=colour, label=name)
            low, high = scores.min(axis=0), scores.max(axis=0)
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if by_minutes:
        axes.set_xlabel("minutes of training")
    else:
        # also readable for short trainings, whose samples are not counted in millions
        from matplotlib.ticker import EngFormatter, MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NARROW NO-BREAK SPACE}"))
        axes.set_xlabel(f"{metric.samples} in training")
    axes.set_ylabel(f"{metric.axis} on training tasks")
    _set_scale(axes, metric)
    several = any(len(seeds) > 1 for parts in curves.values() for seeds in parts.values())
    return "running mean" + ", averaged over seeds; shaded: min–max over seeds" * several


def plot_paths(
    paths_by_stage: Mapping[str, NDArray[Any]], goal: NDArray[Any], title: str, *files: Path
) -> None:
    """Plot the paths of a point before and after adaptation, as in figure 4 of Finn et al. (2017).

    Args:
        paths_by_stage: positions (B, H, 2), NaN after the end of an episode, by name of the stage.
        goal: (2,).
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
            axes.plot(*path[-1], zorder=5, **end)  # above the paths of all stages
    # hollow, so that markers at the goal remain visible
    axes.plot(
        *goal, "o", markerfacecolor="none", color="black", markersize=16, label="goal", zorder=10
    )
    axes.plot(0, 0, "+", color="black", markersize=12, label="start", zorder=10)
    axes.set_aspect("equal")
    axes.set_xlabel("x, metres")
    axes.set_ylabel("y, metres")
    note = f"{len(paths)} trajectories per stage; markers show where they end"
    _finish(figure, axes, note, files, legend_outside=True)


def plot_fits(fits: Mapping[str, Fit], title: str, *files: Path) -> None:
    """Plot predictions before and after adaptation, as Finn et al. 2017 in figures 2 and 3.

    Args:
        fits: of the same task, by label; one panel each.
    """
    figure = _new_figure(2.6 + 4.2 * len(fits), 4.2)
    panels = figure.subplots(1, len(fits), sharey=True, squeeze=False)[0]
    for axes, (label, fit) in zip(panels, fits.items(), strict=True):
        if fit.function:
            axes.plot(*fit.truth.T, color="black", linewidth=1.0, label="true function")
        else:
            axes.plot(*fit.truth.T, ".", color="black", label="query points")
        styles = zip(fit.curves.items(), _styles(fit.curves), strict=True)
        for (step, curve), (colour, _, dash) in styles:
            axes.plot(*curve.T, color=colour, linestyle=dash, label=stage_name(step, None))
        axes.plot(*fit.points.T, "k^", markersize=7, label="support points", zorder=10)
        axes.set_title(label)
        axes.set_xlabel("x")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("y")
    lines = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(lines.values(), lines.keys(), frameon=False, loc="outside right center")
    figure.suptitle(title)
    _save(figure, files)


def plot_classification(episode: Classification, title: str, *files: Path) -> None:
    """Plot the support images and the queries of an episode, one column per class.

    Errors have a frame, and the predicted class as their label.
    """
    ways = len(episode.support)
    columns = [np.flatnonzero(episode.labels == label) for label in range(ways)]
    depth = max(len(column) for column in columns)
    figure = _new_figure(max(4.8, 0.9 * ways), 1.2 + 0.95 * (depth + 1))
    panels = figure.subplots(depth + 1, ways, squeeze=False)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for label, column in enumerate(columns):
        _show_image(panels[0, label], episode.support[label])
        panels[0, label].set_title(str(label + 1), fontsize=9)
        for row, query in enumerate(column):
            axes = panels[row + 1, label]
            _show_image(axes, episode.queries[query])
            if (predicted := episode.predictions[query]) != label:
                axes.spines[:].set(visible=True, color="#D55E00", linewidth=2.5)
                axes.set_xlabel(f"predicted {predicted + 1}", fontsize=8, color="#D55E00")
    panels[0, 0].set_ylabel("support", fontsize=8)
    panels[1, 0].set_ylabel("queries", fontsize=8)
    correct = int((episode.predictions == episode.labels).sum())
    after = f" after {episode.steps} gradient steps" if episode.steps else ""
    note = f"{correct} of {len(episode.labels)} correct{after}; errors are framed"
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(note, fontsize=8, color="0.35")
    _save(figure, files)


def _show_image(axes: Axes, image: NDArray[Any]) -> None:
    if image.shape[-1] == 1:  # strokes are ones: show them dark on light
        axes.imshow(1.0 - image[..., 0], cmap="gray", vmin=0.0, vmax=1.0)
    else:
        axes.imshow(image)


def _set_scale(axes: Axes, metric: Metric) -> None:
    """Errors have a log scale."""
    if not metric.higher_is_better:
        axes.set_yscale("log")


def _styles(curves: Mapping[Any, Any]) -> list[tuple[str, str, Any]]:
    """A colour, a marker and a dash for each curve; repeated colours have other markers."""
    count = len(STYLES)
    # each round of colours pairs them with the next marker and dash
    rotated = [STYLES[(index + index // count) % count] for index in range(len(curves))]
    return [
        (STYLES[index % count][0], marker, dash) for index, (_, marker, dash) in enumerate(rotated)
    ]


def _line(index: int) -> str:
    """The line style of the curve with this index: dashed where colours repeat."""
    return "-" if index < len(STYLES) else "--"


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = _new_figure(5.6, 4.2)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _finish(
    figure: Figure, axes: Axes, note: str, paths: Sequence[Path], legend_outside: bool = False
) -> None:
    axes.grid(alpha=0.3)
    if legend_outside:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(frameon=False)
    figure.supxlabel(textwrap.fill(note, 75), fontsize=8, color="0.35")
    _save(figure, paths)


UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def _save(figure: Figure, paths: Sequence[Path]) -> None:
    for path in paths:
        figure.savefig(path, dpi=150, metadata=UNDATED.get(path.suffix))
