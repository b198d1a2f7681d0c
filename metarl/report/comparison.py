"""Comparison of experiments: adaptation on the same tasks after training with a known budget."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metarl.dataframe import to_dataframe
from metarl.errors import UserError
from metarl.evaluation import WORST, AdaptationCurve, Summary, format_score
from metarl.method import EPISODES, AdaptationUnit, method_class
from metarl.report.captions import describe_intervals, stage_name, units_label
from metarl.report.evaluations import load_checked_state, takes_gradient_steps
from metarl.report.groups import ExperimentGroup, meta_learners
from metarl.report.paired import paired_caption, paired_differences, paired_rows
from metarl.report.plots import plot_adaptation, plot_training
from metarl.report.text_tables import latex_table, markdown_table
from metarl.report.training_curves import training_curves
from metarl.runs.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame

WIDE = {"step size", "environment steps", "examples", "budget"}  # columns
# of the files of `write_plots`, without their endings
PLOT_NAMES = ("adaptation", "training", "success_adaptation", "success_training")


@dataclass(frozen=True)
class Comparison:
    """Experiments on the same tasks, as `metarl.compare` returns them. `print` shows their tables.

    Attributes:
        groups: the experiments.
    """

    groups: Sequence[ExperimentGroup]

    @property
    def entries(self) -> Sequence[ExperimentGroup]:
        """Deprecated name of `groups`."""
        warnings.warn(
            "Comparison.entries is deprecated; use Comparison.groups",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.groups

    def __repr__(self) -> str:  # also what `print` and notebooks show
        return markdown(self.groups)

    def to_frame(self) -> "DataFrame":
        """A pandas frame with a row for each method and step: `estimate`, `low`, `high` and so on.

        Raises:
            UserError: if pandas is not installed.
        """
        return to_dataframe(numbers(self.groups))


def check_many_steps(runs: Sequence[Run]) -> None:
    """Check that there is a score for `with_steps_to_match` to reach.

    Raises:
        UserError: if no run is of a meta-learner that takes gradient steps.
    """
    methods = [method_class(run.config) for run in runs if takes_gradient_steps(run)]
    if not any(method.role == "meta-learner" for method in methods):
        raise _nothing_to_match()


def _nothing_to_match() -> UserError:
    return UserError(
        "--many-steps needs the run of a meta-learner that takes gradient steps, such as MAML, to "
        "be matched; add one, or omit --many-steps"
    )


def with_steps_to_match(groups: Sequence[ExperimentGroup], max_steps: int) -> list[ExperimentGroup]:
    """Find how many gradient steps baselines need to reach a meta-learner's score after one step.

    Of several meta-learners that take gradient steps, it is the one with the best score. The first
    run of each baseline is fine-tuned further with its last step size.

    Raises:
        UserError: if there is no such meta-learner.
    """
    # after one episode of RL² a policy has not taken one gradient step
    metas = [group for group in meta_learners(groups) if _has_step_sizes(group)]
    if not metas:
        raise _nothing_to_match()
    sign = metas[0].method.problem.metric.sign
    best = max(metas, key=lambda group: sign * group.summary.estimate[1])
    target = sign * best.summary.estimate[1]
    result = []
    for group in groups:
        if group not in metas and _has_step_sizes(group):
            # the evaluation's schedule, and then its last step size for as long as it takes
            sizes = group.curves[0].step_sizes
            schedule = (*sizes, *[sizes[-1]] * max_steps)[:max_steps]
            theta = load_checked_state(group.runs[0], group.method).params
            curve = group.method.evaluate(theta, schedule)
            steps = np.flatnonzero(sign * curve.scores.mean(axis=0) >= target)
            text = str(steps[0]) if len(steps) else f"more than {max_steps}"
            group = replace(group, steps_to_match=text, matched=best.label)
        result.append(group)
    return result


def _has_step_sizes(group: ExperimentGroup) -> bool:
    unit = group.method.adaptation_unit
    return unit is not None and unit.has_step_sizes


def rows(groups: Sequence[ExperimentGroup]) -> list[dict[str, str]]:
    """The table of a comparison: one row per experiment, by column name.

    Scores come first. Stages of different units, such as gradient steps and episodes, share the
    columns "step 1", "step 2" and so on; a further column then says what a step is.
    """
    unit = shared_unit(groups)
    num_stages = max(len(group.summary.estimate) for group in groups)
    metric = groups[0].method.problem.metric
    # RL² counts episodes where MAML counts gradient steps: "after 1 step" would be ambiguous
    mixed = unit is None and any(units_of(groups))
    stages = [f"step {k}" if mixed and k else stage_name(k, unit) for k in range(num_stages)]
    headings = [f"{metric.name}{',' if unit and unit.first else ''} {stages[0]}", *stages[1:]]
    has_success = any(group.success for group in groups)
    matched = next((group.matched for group in groups if group.matched), None)
    table = []
    for group in groups:
        row = {"method": group.label}
        for k, heading in enumerate(headings):
            # an oracle has one stage only; a dash says that there is nothing to measure
            row[heading] = _format_step(group.summary, k)
        if has_success:
            for k, stage in enumerate(stages):
                row[f"{metric.success.name} {stage}"] = _format_step(group.success, k)
        row[WORST] = format_score(group.worst[-1])
        if mixed:
            row["adaptation step"] = _adaptation_step(group)
        row |= {
            "step size": _step_sizes(group.curves),
            "seeds": ", ".join(str(run.config.seed) for run in group.runs),
            metric.samples: range_in_millions(group.samples),
            "budget": in_millions(group.method.max_samples),
        }
        if matched:
            row[f"steps to match {matched}'s {metric.name} (1 step)"] = group.steps_to_match or "–"
        table.append(row)
    return table


def _format_step(summary: Summary | None, step: int) -> str:
    """An estimate with its interval; a dash where there is none."""
    if summary is None or step >= len(summary.estimate):
        return "–"
    return summary.format_step(step)


def units_of(groups: Sequence[ExperimentGroup]) -> set[AdaptationUnit | None]:
    """The units of adaptation; None is among them if a method does not adapt."""
    return {group.method.adaptation_unit for group in groups}


def shared_unit(groups: Sequence[ExperimentGroup]) -> AdaptationUnit | None:
    """The unit of all methods that adapt; None if there is none, or more than one."""
    units = units_of(groups) - {None}
    return units.pop() if len(units) == 1 else None


def uses_episodes(groups: Sequence[ExperimentGroup]) -> bool:
    """Whether adaptation is plotted against episodes, the axis that all methods have."""
    return any(unit and unit.counts_episodes for unit in units_of(groups))


def _adaptation_step(group: ExperimentGroup) -> str:
    episodes = group.curves[0].episodes
    unit = group.method.adaptation_unit
    if unit and unit.has_step_sizes and len(episodes) > 1:
        return f"a gradient step on {episodes[1]} episodes"
    return unit.name if unit else "–"


def range_in_millions(samples: Sequence[int]) -> str:
    """The numbers of samples of an experiment's seeds, in millions."""
    # seeds differ in their samples where episodes end early
    return " to ".join(dict.fromkeys([in_millions(min(samples)), in_millions(max(samples))]))


def in_millions(samples: float) -> str:
    """A number of samples in millions; in units where that would be 0.00."""
    return f"{samples / 1e6:.2f} M" if samples >= 10_000 else f"{samples:.0f}"


def _step_sizes(curves: Sequence[AdaptationCurve]) -> str:
    """The first step size of each run, without repetitions."""
    first = dict.fromkeys(f"{curve.step_sizes[0]:g}" for curve in curves if curve.step_sizes)
    return ", ".join(first) or "–"


def numbers(groups: Sequence[ExperimentGroup]) -> list[dict[str, object]]:
    """The scores for programs: one row per method and step, see `ExperimentGroup.steps`.

    `unit` is what a step is, such as a gradient step or an episode of a recurrent policy.
    """
    return [
        {"method": group.label, "unit": unit.name if unit else "", **row}
        for group in groups
        for unit in [group.method.adaptation_unit]
        for row in group.steps()
    ]


def tables(groups: Sequence[ExperimentGroup]) -> list[tuple[list[dict[str, str]], str]]:
    """The tables of a comparison, scores and paired differences, each with its caption."""
    result = [(rows(groups), caption(groups))]
    if differences := paired_differences(groups):
        result.append((paired_rows(differences), paired_caption(differences)))
    return result


def markdown(groups: Sequence[ExperimentGroup]) -> str:
    """The tables in Markdown."""
    parts = [part for table, text in tables(groups) for part in (markdown_table(table), text)]
    return "\n\n".join(parts) + "\n"


def latex(groups: Sequence[ExperimentGroup]) -> str:
    """The tables in LaTeX, without the columns that would not fit on a page."""
    parts = [
        latex_table([{n: row[n] for n in row if n not in WIDE} for row in table], text)
        for table, text in tables(groups)
    ]
    return "% \\usepackage{booktabs}\n" + "\n".join(parts)


def caption(groups: Sequence[ExperimentGroup]) -> str:
    """The caption of the table of scores."""
    axis = groups[0].method.problem.metric.axis
    intervals = describe_intervals({group.label: group.summary for group in groups})
    return (
        f"{axis[0].upper()}{axis[1:]} on held-out tasks: {intervals}. {WORST.capitalize()}: their "
        "mean after the last step."
    )


def write_plots(
    groups: Sequence[ExperimentGroup], folder: Path, *formats: str
) -> dict[str, list[Path]]:
    """Write the plots of a comparison.

    Args:
        groups: the experiments.
        folder: the output directory.
        formats: endings of the files, such as `png`.

    Returns:
        The files of each plot, by its description. Without metrics there is no plot of training.
    """
    title, metric = groups[0].method.problem.title, groups[0].method.problem.metric

    def files(name: str) -> list[Path]:
        return [folder / f"{name}.{ending}" for ending in formats]

    units, by_episodes = units_of(groups), uses_episodes(groups)
    axis = EPISODES.axis_label if by_episodes else units_label(units)
    scores = {group.label: group.summary for group in groups}
    success = {group.label: group.success for group in groups if group.success is not None}
    plots = {}
    for shown, summaries, prefix in ((metric, scores, ""), (metric.success, success, "success_")):
        if not summaries:
            continue
        name = f"{prefix}adaptation"
        plots[f"{shown.name} against {axis}"] = files(name)
        plot_adaptation(
            summaries,
            shown,
            f"Adaptation: {title}",
            *files(name),
            units=units,
            episodes={group.label: group.curves[0].episodes for group in groups}
            if by_episodes
            else None,
        )
        curves = {group.label: training_curves(group.runs, shown) for group in groups}
        # shipped runs have no metrics of their training, and an empty plot says nothing
        if any(parts["before"] or parts["after"] for parts in curves.values()):
            name = f"{prefix}training"
            plots[f"{shown.name} in training"] = files(name)
            plot_training(curves, shown, f"Training: {title}", *files(name))
    return plots
