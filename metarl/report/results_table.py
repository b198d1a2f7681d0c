"""The table of a section of the results page: one row per experiment, seed and published figure."""

import re
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

import yaml

from metarl.evaluation import Metric, Summary, mean_over_tasks
from metarl.method import AdaptationUnit
from metarl.report.comparison import in_millions, shared_unit
from metarl.report.groups import METHOD_SPECIFIC, ExperimentGroup
from metarl.report.paired import PairedDifference
from metarl.report.published import Published, format_figure
from metarl.report.text_tables import markdown_table
from metarl.report.training_curves import format_minutes, minutes_to_score, training_time
from metarl.runs.run import Run

STEPS = (0, 1, 2, 3, 5, 10, 12)  # columns, as far as any row goes
# evaluation settings that the section's title or another column shows
SHOWN_ELSEWHERE = {*METHOD_SPECIFIC, "ways", "shots", "tasks", "episodes_per_task"}
# descriptive cells by column, scores by number of adaptation steps, training costs by column
Row = tuple[dict[str, str], dict[int, str], dict[str, str]]
Table = list[dict[str, str]]


def results_tables(
    protocols: Sequence[Sequence[ExperimentGroup]],
    published: Published | None,
    differences: Sequence[PairedDifference],
) -> tuple[Table, Table]:
    """One row per experiment and protocol, and per published method.

    Where environments report success, a column has the rate after the last step. Where a return of
    MAML after one step was published, one has the time in which training reached it.

    Args:
        protocols: the experiments on the same tasks, by evaluation protocol.
        published: the published results for these tasks.
        differences: paired differences between experiments, for a column.

    Returns:
        The table, and the complete one, which also has a row for each seed, and columns of step
        sizes, episodes and tasks.
    """
    groups = [group for protocol in protocols for group in protocol]
    settings = [group.method.problem.evaluation_settings for group in groups]
    varying = [
        name
        for name in settings[0]
        if name not in SHOWN_ELSEWHERE
        and any(other.get(name) != settings[0][name] for other in settings)
    ]
    rows: list[Row] = []
    rows_with_seeds: list[Row] = []
    for group, cells in zip(groups, _difference_cells(groups, differences), strict=True):
        (description, scores, costs), *seeds = _group_rows(group, varying, published)
        row = description, scores, cells | costs
        rows.append(row)
        rows_with_seeds += [row, *seeds]
    published_rows: list[Row] = []
    if published:
        for method, figures in published.rows.items():
            description = {"": f"*published: {method}*", "tasks": str(published.tasks or "")}
            scores = {k: format_figure(figure) for k, figure in figures.items()}
            published_rows.append((description, scores, {}))
    hidden = {"episodes per step", "tasks", *(["step sizes"] if len(protocols) == 1 else [])}
    unit = shared_unit(groups)
    return (
        _table(rows + published_rows, unit, hidden),
        _table(rows_with_seeds + published_rows, unit),
    )


def _table(rows: Sequence[Row], unit: AdaptationUnit | None, hidden: Collection[str] = ()) -> Table:
    """The rows with one cell for each column, apart from hidden columns."""
    present = {k for _, scores, _ in rows for k in scores}
    headings = {_heading(k, unit): k for k in STEPS if k in present}
    first_columns = dict.fromkeys(name for description, _, _ in rows for name in description)
    last_columns = dict.fromkeys(name for _, _, costs in rows for name in costs)
    return [
        {name: description.get(name, "") for name in first_columns if name not in hidden}
        | {heading: scores.get(k, "–") for heading, k in headings.items()}
        | {name: costs.get(name, "") for name in last_columns}
        for description, scores, costs in rows
    ]


def _group_rows(
    group: ExperimentGroup, varying: Sequence[str], published: Published | None
) -> list[Row]:
    """The rows of one experiment, all seeds and each, with the settings that vary in the table."""
    curve = group.curves[0]
    schedules = dict.fromkeys(", ".join(f"{s:g}" for s in c.step_sizes[:3]) for c in group.curves)
    unit = group.method.adaptation_unit
    step = f"1 {unit.name} per step" if unit and not curve.step_sizes else " or ".join(schedules)
    if len(curve.step_sizes) > 3:
        step += ", …"
    settings = group.method.problem.evaluation_settings
    common = {name: yaml.safe_dump(settings.get(name)).split("\n")[0] for name in varying}
    common["step sizes"] = step or "–"
    if curve.episodes:
        common["episodes per step"] = str(curve.episodes[1]) if len(curve.episodes) > 1 else "–"

    def row(label: str, runs: Sequence[Run], summary: Summary, success: Summary | None) -> Row:
        seeds = ", ".join(str(run.config.seed) for run in runs)
        description = {"": label, **common, "seeds": seeds, "tasks": str(len(curve.tasks))}
        scores = {k: summary.format_step(k) for k in range(len(summary.estimate))}
        rates = {"success": success.format_step(-1)} if success else {}
        return description, scores, rates | costs(runs)

    def costs(runs: Sequence[Run]) -> dict[str, str]:
        samples = [run.description().samples for run in runs]
        return {
            group.method.problem.metric.samples: in_millions(fmean(samples)),
            "minutes": training_time(runs),
            **_minutes_to_published(runs, group.method.problem.metric, published),
        }

    rows = [row(group.label, group.runs, group.summary, group.success)]
    if len(group.runs) > 1:
        for run, curve_of_seed in zip(group.runs, group.curves, strict=True):
            label = f"{group.label}, seed {run.config.seed}"
            summary = mean_over_tasks(curve_of_seed.scores)
            rows.append(row(label, [run], summary, curve_of_seed.success_summary))
    return rows


def _minutes_to_published(
    runs: Sequence[Run], metric: Metric, published: Published | None
) -> dict[str, str]:
    if published is None or published.target is None:
        return {}
    minutes = minutes_to_score(runs, metric, published.target)
    cell = "–" if minutes is None else format_minutes(minutes, 2)
    return {f"minutes to {published.target:g}": cell}


def _difference_cells(
    groups: Sequence[ExperimentGroup], differences: Sequence[PairedDifference]
) -> list[dict[str, str]]:
    """One cell per experiment: the reference's score minus its own after one step, task by task.

    The cell names the reference only where the protocols have different ones.
    """
    if not differences:
        return [{} for _ in groups]
    references = {pair.reference.label: pair.reference for pair in differences}
    labels = {reference.method.label for reference in references.values()}
    reference = labels.pop() if len(labels) == 1 else "meta-learner"
    heading = f"{reference} − method ({_heading(1, shared_unit(groups))})"
    cells = {id(pair.reference): "– (reference)" for pair in differences} | {
        id(pair.other): pair.summary.format_step(1)
        + (f" ({pair.reference.label})" if len(references) > 1 else "")
        for pair in differences
    }
    return [{heading: cells.get(id(group), "–")} for group in groups]


def _heading(step: int, unit: AdaptationUnit | None) -> str:
    if unit and unit.first:
        return unit.stage_name(step)
    return "pre-adaptation" if step == 0 else f"{step} step{'s' * (step > 1)}"


def results_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table in Markdown, with minus signs in numbers but not in commands."""
    return re.sub(r"(?<=[ \[*])-(?=\d)", "−", markdown_table(rows))
