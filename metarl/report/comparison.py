"""Runs side by side: who adapts best, on the same tasks, with the same budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metarl.dataframe import frame
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.method import EPISODES, AdaptationUnit
from metarl.report.evaluations import fitting_state
from metarl.report.groups import Entry, meta_learners
from metarl.report.paired import paired, paired_meaning, paired_rows
from metarl.report.plots import (
    meanings,
    plot_adaptation,
    plot_training,
    stage_name,
    units_label,
)
from metarl.runs.metrics import training_minutes
from metarl.runs.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Comparison:
    """A comparison to look at: `print` shows its tables.

    Attributes:
        entries: an experiment each.
    """

    entries: Sequence[Entry]

    def __str__(self) -> str:
        return markdown(self.entries)

    def to_frame(self) -> "DataFrame":
        """A pandas frame with a row for each method and step: `estimate`, `low`, `high` and so on.

        Raises:
            UserError: if pandas is not installed.
        """
        return frame(
            {
                "method": entry.label,
                "step": step,
                "estimate": float(entry.summary.estimate[step]),
                "low": float(entry.summary.low[step]),
                "high": float(entry.summary.high[step]),
                "runs": len(entry.runs),
            }
            for entry in self.entries
            for step in range(len(entry.summary.estimate))
        )


def with_steps_to_match(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Ask of those who fine-tune how many steps take them to where MAML is after one.

    The first run of each goes on with the last of its step sizes.

    Args:
        entries: a comparison.
        most: after how many steps to give up.

    Raises:
        UserError: if no meta-policy is among them.
    """
    metas = meta_learners(entries)
    if not metas:
        raise UserError("--many-steps needs the run of a meta-learner that adapts, to be matched")
    sign = 1.0 if metas[0].method.problem.metric.higher_is_better else -1.0
    target = max(sign * entry.summary.estimate[1] for entry in metas)
    asked = []
    for entry in entries:
        unit = entry.method.adaptation_unit
        if entry not in metas and unit and unit.has_step_sizes:
            sizes = entry.curves[0].step_sizes
            schedule = (*sizes, *[sizes[-1]] * most)[:most]
            theta = fitting_state(entry.runs[0], entry.method).params
            curve = entry.method.evaluate(theta, schedule)
            reached = np.flatnonzero(sign * curve.scores.mean(axis=0) >= target)
            text = str(reached[0]) if len(reached) else f"more than {most}"
            entry = replace(entry, steps_to_match=text)
        asked.append(entry)
    return asked


def rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """The comparison as a table: a row for each entry, by column name; scores come first."""
    steps = max(len(entry.summary.estimate) for entry in entries)
    metric = entries[0].method.problem.metric
    mixed = any(unit and not unit.has_step_sizes for unit in units_of(entries))
    table = []
    for entry in entries:
        row = {"method": entry.label}
        for k in range(steps):
            after = f"stage {k}" if mixed else stage_name(k, None)
            heading = f"{metric.name} before" if k == 0 else after
            row[heading] = entry.summary.after(k) if k < len(entry.summary.estimate) else "–"
        if mixed:
            row["a stage is"] = _stage(entry)
        row |= {
            "step size": _step_sizes(entry.curves),
            "seeds": ", ".join(str(run.config.seed) for run in entry.runs),
            metric.samples: _span(entry.samples),
            "budget": _millions(entry.method.max_samples),
        }
        if any(other.steps_to_match for other in entries):
            row[f"steps to MAML's {metric.name} after 1"] = entry.steps_to_match or "–"
        table.append(row)
    return table


def units_of(entries: Sequence[Entry]) -> set[AdaptationUnit | None]:
    """What their adaptation is counted in; None among them where some do not adapt."""
    return {entry.method.adaptation_unit for entry in entries}


def by_episodes(entries: Sequence[Entry]) -> bool:
    """Whether methods adapt in different ways: then they share the axis of episodes used."""
    return any(unit and unit.counts_episodes for unit in units_of(entries))


def _stage(entry: Entry) -> str:
    """What one stage of adaptation is, in words."""
    episodes = entry.curves[0].episodes
    unit = entry.method.adaptation_unit
    if unit and unit.has_step_sizes and len(episodes) > 1:
        return f"a gradient step on {episodes[1]} episodes"
    return unit.name if unit else "–"


def minutes(runs: Sequence[Run]) -> str:
    """How long trainings took, the mean of those recorded, without evaluations and pauses."""
    every = [training_minutes(metrics) for run in runs if (metrics := run.metrics())]
    return f"{fmean(every):.3g}" if every else "–"


def _span(steps: Sequence[int]) -> str:
    """The fewest and the most, in millions."""
    return " to ".join(dict.fromkeys([_millions(min(steps)), _millions(max(steps))]))


def _millions(steps: int) -> str:
    return f"{steps / 1e6:.2f} M" if steps else "0"


def _step_sizes(curves: Sequence[AdaptationCurve]) -> str:
    """The first step size of each run, as it was trained for or chosen."""
    first = dict.fromkeys(f"{curve.step_sizes[0]:g}" for curve in curves if curve.step_sizes)
    return ", ".join(first) or "–"


def tables(entries: Sequence[Entry]) -> list[tuple[list[dict[str, str]], str]]:
    """What a comparison shows: scores, and differences where there are any; and what they mean."""
    shown = [(rows(entries), meaning(entries))]
    if differences := paired(entries):
        shown.append((paired_rows(differences), paired_meaning(differences)))
    return shown


def markdown(entries: Sequence[Entry]) -> str:
    """The tables in Markdown."""
    parts = [part for table, said in tables(entries) for part in (markdown_table(table), said)]
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of the same columns in Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in rows)])


def meaning(entries: Sequence[Entry]) -> str:
    """What the numbers of the table are, in a sentence."""
    axis = entries[0].method.problem.metric.axis
    said = meanings({entry.label: entry.summary for entry in entries})
    return f"{axis[0].upper()}{axis[1:]} on unseen tasks: {said}."


def draw(entries: Sequence[Entry], folder: Path, *formats: str) -> dict[str, list[Path]]:
    """Write the plots of a comparison.

    Args:
        entries: a comparison.
        folder: where to.
        formats: what the files' names end with, such as `png`.

    Returns:
        By what it shows, the files of a plot. Training is left out where no run recorded it.
    """
    title, metric = entries[0].method.problem.title, entries[0].method.problem.metric

    def files(name: str) -> list[Path]:
        return [folder / f"{name}.{ending}" for ending in formats]

    counted = units_of(entries)
    axis = EPISODES.axis_label if by_episodes(entries) else units_label(counted)
    plots = {f"{metric.name} against {axis}": files("adaptation")}
    summaries = {entry.label: entry.summary for entry in entries}
    used = {entry.label: entry.curves[0].episodes for entry in entries}
    plot_adaptation(
        summaries,
        metric,
        f"Adaptation: {title}",
        *files("adaptation"),
        counted=counted,
        episodes=used if by_episodes(entries) else None,
    )
    curves = {entry.label: training_curves(entry) for entry in entries}
    if any(parts["before"] or parts["after"] for parts in curves.values()):
        plots[f"{metric.name} in training"] = files("training")
        plot_training(curves, metric, f"Training: {title}", *files("training"))
    return plots


def training_curves(entry: Entry) -> Mapping[str, list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Samples and scores in training, for each run; by "before" and "after" adaptation.

    A run that has no metrics, as those that come with the package, is left out.
    """
    metric = entry.method.problem.metric
    curves: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {"before": [], "after": []}
    for run in entry.runs:
        metrics = run.metrics()
        if not metrics:
            continue
        sampled = metric.samples.replace(" ", "_")
        names = [name for name in metrics[0] if name.startswith(f"{metric.name}/")]
        before = [name for name in names if "/after_0_" in name]
        after = [name for name in names if name not in before][-1:]
        wanted = [(name, "before") for name in before] + [(name, "after") for name in after]
        for number, line in enumerate(metrics, start=1):
            if lacking := [name for name in (sampled, *dict(wanted)) if name not in line]:
                raise UserError(
                    f"line {number} of {run.path / 'metrics.jsonl'} lacks {lacking[0]}: the file "
                    "is damaged, or of another version of metarl; restore it, or delete it"
                )
        samples = np.cumsum([line[sampled] for line in metrics])
        for name, when in wanted:
            curves[when].append((samples, np.array([line[name] for line in metrics])))
    return curves
