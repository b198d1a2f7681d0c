"""The overview tables of the results page: every method on every task."""

from collections.abc import Sequence

from metarl.report.groups import ExperimentGroup
from metarl.report.published import Published, format_figure

Column = tuple[str, Sequence[ExperimentGroup], Published | None]


def overview_rows(columns: Sequence[Column]) -> list[dict[str, str]]:
    """One row per method; a cell has the score, its interval and the published score.

    Policies are compared after one gradient step, networks after as many steps as the published
    score, or after the last step where nothing was published.

    Args:
        columns: for each column, its heading, the evaluated experiments and the published results.
    """
    labels = {group.method.label for _, groups, _ in columns for group in groups}
    return [
        {"": label} | {heading: _cell(label, groups, found) for heading, groups, found in columns}
        for label in sorted(labels, key=lambda label: (label != "MAML", _rank(label, columns)))
    ]


def _rank(label: str, columns: Sequence[Column]) -> int:
    """The place of a method among those of the column that has the most methods."""
    _, groups, _ = max(columns, key=lambda column: len(column[1]))
    present = [group.method.label for group in groups]
    return present.index(label) if label in present else len(present)


def _cell(label: str, groups: Sequence[ExperimentGroup], published: Published | None) -> str:
    group = next((group for group in groups if group.method.label == label), None)
    if group is None:
        return "–"
    figures = published.rows.get(label, {}) if published else {}
    last = len(group.summary.estimate) - 1
    is_policy = group.runs[0].config.domain == "rl"
    step = min(1 if is_policy else max(figures, default=last), last)
    estimate, _, interval = group.summary.format_step(step).partition(" ")
    lines = [f"**{estimate}**" + (f" after {step}" if step and not is_policy else ""), interval]
    if group.success:
        lines.append(f"success {group.success.format_step(step)}")
    if step in figures:
        lines.append(f"*published {format_figure(figures[step])}*")
    return "<br>".join(lines)
