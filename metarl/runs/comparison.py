"""Runs side by side: who adapts best, on the same tasks, with the same budget."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, Summary, summarise
from metarl.frames import frame
from metarl.method import AXES, Axis, Method
from metarl.runs.config import SEED, differences
from metarl.runs.metrics import training_minutes
from metarl.runs.plots import counted_in, meanings, plot_adaptation, plot_training, step_name
from metarl.runs.results import Evaluated, fitting_state, measured
from metarl.runs.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame

Thing = TypeVar("Thing")

# how a method adapts is its own business; the table tells it
OWN = ("step_sizes", "steps")


@dataclass(frozen=True)
class Entry:
    """One experiment in a comparison: a method, and the runs that differ in their seed alone.

    Attributes:
        label: what to call it.
        runs: its runs.
        method: of the first run.
        curves: the adaptation curve of each.
        summary: of all of them.
        steps_to_match: how many gradient steps it takes to where MAML is after one, in words; empty
            where nobody asked.
    """

    label: str
    runs: Sequence[Run]
    method: Method
    curves: Sequence[AdaptationCurve]
    summary: Summary
    steps_to_match: str = ""

    @property
    def samples(self) -> list[int]:
        """How many each run was trained with."""
        return [run.load().samples for run in self.runs]


def compare(runs: Sequence[Run]) -> list[Entry]:
    """Evaluate runs where they were not, and put them side by side.

    Args:
        runs: what to compare.

    Raises:
        UserError: if they are about different tasks, or were evaluated on different ones.
    """
    refuse_twice(runs)
    _check_tasks(runs)
    evaluated = [measured(run) for run in runs]
    _check_evaluations(evaluated)
    return experiments(evaluated)


def experiments(evaluated: Sequence[Evaluated]) -> list[Entry]:
    """Group what was evaluated alike, in the order of the domain's registry of methods."""
    groups = gathered(
        evaluated,
        lambda group, other: not differences(group[0].run.config, other.run.config, SEED),
    )
    labels = Counter(group[0].method.label for group in groups)
    names = short_names([each.run.path for each in evaluated])
    entries = []
    for group in groups:
        group.sort(key=lambda each: each.run.config.seed)
        first = group[0]
        label = first.method.label
        if labels[label] > 1:
            label += f" ({names[first.run.path]})"
        runs, curves = [each.run for each in group], [each.curve for each in group]
        summary = summarise([curve.scores for curve in curves])
        entries.append(Entry(label, runs, first.method, curves, summary))
    order = list(entries[0].method.problem.methods)
    # whatever is not registered is somebody's own, and comes last
    present = [entry.runs[0].config.method.name for entry in entries]
    order += [name for name in present if name not in order]
    return sorted(entries, key=lambda entry: order.index(entry.runs[0].config.method.name))


@dataclass(frozen=True)
class Comparison:
    """A comparison to look at: `print` shows a table.

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
    metas = [
        entry
        for entry in entries
        if entry.method.role == "meta-learner" and len(entry.summary.estimate) > 1
    ]
    if not metas:
        raise UserError("--many-steps needs the run of a meta-learner that adapts, to be matched")
    sign = 1.0 if metas[0].method.problem.metric.higher_is_better else -1.0
    target = max(sign * entry.summary.estimate[1] for entry in metas)
    asked = []
    for entry in entries:
        if entry.method.role == "baseline" and entry.method.axis == "gradient steps":
            sizes = entry.curves[0].step_sizes
            schedule = (*sizes, *[sizes[-1]] * most)[:most]
            theta = fitting_state(entry.runs[0], entry.method).theta
            curve = entry.method.adaptation_curve(theta, schedule)
            reached = np.flatnonzero(sign * curve.scores.mean(axis=0) >= target)
            text = str(reached[0]) if len(reached) else f"more than {most}"
            entry = replace(entry, steps_to_match=text)
        asked.append(entry)
    return asked


def refuse_twice(runs: Sequence[Run]) -> None:
    """Raise UserError if a run is named twice: it would count as two seeds."""
    paths = [run.path.resolve() for run in runs]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"{twice[0]} is named twice; a run counts once")


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What to call directories: by their last part, or as many as tell them apart."""
    names: dict[Path, str] = {}
    for path in paths:
        whole = path.resolve().parts
        others = {other.resolve().parts for other in paths} - {whole}
        length = 1
        while any(other[-length:] == whole[-length:] for other in others):
            length += 1
        names[path] = "/".join(whole[-length:])
    return names


def by_tasks(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that can be compared with one another, in the order of their first ones."""
    return gathered(runs, lambda group, run: not _other_tasks(group[0], run))


def gathered(
    things: Iterable[Thing], fits: Callable[[Sequence[Thing], Thing], bool]
) -> list[list[Thing]]:
    """Things in groups, each in the first one that it fits into, else in one of its own."""
    groups: list[list[Thing]] = []
    for thing in things:
        for group in groups:
            if fits(group, thing):
                group.append(thing)
                break
        else:
            groups.append([thing])
    return groups


def _other_tasks(first: Run, run: Run) -> list[str]:
    """Which settings make the tasks of one run others than those of another."""
    return [
        difference
        for difference in differences(first.config, run.config, SEED)
        if difference.startswith(("family.", "data."))
    ]


def _check_tasks(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        run.check_data_hashes(first.data_hashes())
        changed = _other_tasks(first, run)
        if changed:
            raise UserError(
                f"{run.path} is about other tasks than {first.path} ({'; '.join(changed)}): they "
                "cannot be compared"
            )


def other_evaluation(first: Method, other: Method) -> dict[str, str]:
    """By name, the settings because of which scores of two methods cannot be compared."""
    before = first.problem.evaluation_settings
    # by gradients, how many episodes a step takes; else, how many are averaged
    own = OWN if other.axis == first.axis else (*OWN, "trajectories")
    return {
        name: f"evaluation.{name}: {before.get(name)} → {value}"
        for name, value in other.problem.evaluation_settings.items()
        if value != before.get(name) and name not in own
    }


def _check_evaluations(evaluated: Sequence[Evaluated]) -> None:
    first, *others = evaluated
    for other in others:
        if changed := other_evaluation(first.method, other.method):
            fix = " ".join(f"--set evaluation.{name}=…" for name in changed)
            path = other.run.path
            raise UserError(
                f"{path} was evaluated otherwise than {first.run.path} "
                f"({'; '.join(changed.values())}); evaluate it alike: metarl evaluate {path} {fix}"
            )


def rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """The comparison as a table: a row for each entry, by column name; scores come first."""
    steps = max(len(entry.summary.estimate) for entry in entries)
    metric = entries[0].method.problem.metric
    mixed = not axes_of(entries) <= {"gradient steps", None}
    table = []
    for entry in entries:
        row = {"method": entry.label}
        for k in range(steps):
            after = f"stage {k}" if mixed else step_name(k)
            heading = f"{metric.name} before" if k == 0 else after
            row[heading] = entry.summary.after(k) if k < len(entry.summary.estimate) else "–"
        if mixed:
            row["a stage is"] = _stage(entry)
        row |= {
            "step size": _step_sizes(entry.curves),
            "seeds": ", ".join(str(run.config.seed) for run in entry.runs),
            metric.samples: _span(entry.samples),
            "budget": _millions(entry.method.budget),
        }
        if any(other.steps_to_match for other in entries):
            row[f"steps to MAML's {metric.name} after 1"] = entry.steps_to_match or "–"
        table.append(row)
    return table


def axes_of(entries: Sequence[Entry]) -> set[Axis | None]:
    """What their adaptation is counted in; None among them where some do not adapt."""
    return {entry.method.axis for entry in entries}


def by_episodes(entries: Sequence[Entry]) -> bool:
    """Whether methods adapt in different ways: then they share the axis of episodes used."""
    return "episodes" in axes_of(entries)


def _stage(entry: Entry) -> str:
    """What one stage of adaptation is, in words."""
    episodes = entry.curves[0].episodes
    if entry.method.axis == "gradient steps" and len(episodes) > 1:
        return f"a gradient step on {episodes[1]} episodes"
    return AXES[entry.method.axis].stage if entry.method.axis else "–"


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


def markdown(entries: Sequence[Entry]) -> str:
    """The table in Markdown."""
    table = rows(entries)
    lines = ["| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in table]
    return "\n".join([*lines, "", meaning(entries), ""])


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

    counted = axes_of(entries)
    axis = AXES["episodes"].plot if by_episodes(entries) else counted_in(counted)
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
