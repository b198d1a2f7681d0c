"""The overview tables of the results page: every method on every task."""

from collections.abc import Sequence

from metarl.report.groups import ExperimentGroup, same_experiment
from metarl.report.published import Published, format_figure

Column = tuple[str, Sequence[ExperimentGroup], Published | None]


def overview_rows(columns: Sequence[Column]) -> list[dict[str, str]]:
    """One row per method, and for each of its further experiments.

    A cell has the score, its interval and the published score.

    Policies are compared after one gradient step, networks after as many steps as the published
    score, or after the last step where nothing was published.

    Args:
        columns: for each column, its heading, the evaluated experiments and the published results.
    """
    rows = {heading: _by_row(groups) for heading, groups, _ in columns}
    methods = {label: group.method.label for row in rows.values() for label, group in row.items()}
    order = sorted(
        methods,
        # the first experiment of a method before its others
        key=lambda label: (
            methods[label] != "MAML",
            _rank(methods[label], columns),
            label != methods[label],
            label,
        ),
    )
    return [
        {"": label}
        | {heading: _cell(label, rows[heading].get(label), found) for heading, _, found in columns}
        for label in order
    ]


def _by_row(groups: Sequence[ExperimentGroup]) -> dict[str, ExperimentGroup]:
    """The experiments of a column by the labels of their rows.

    The first experiment of a method is in the row that the method has in all columns; others have
    rows of their own.
    """
    rows: dict[str, ExperimentGroup] = {}
    # runs that start from others come last
    for group in sorted(groups, key=lambda group: group.runs[0].config.init_from is not None):
        if any(_is_same(group, other) for other in rows.values()):
            continue  # another protocol has the same experiments again
        label = group.method.label if group.method.label not in rows else group.label
        if label in rows:  # that of an experiment of another protocol
            label += f" ({group.runs[0].path.name})"
        rows[label] = group
    return rows


def _is_same(group: ExperimentGroup, other: ExperimentGroup) -> bool:
    return group.label == other.label and same_experiment(
        group.runs[0].config, other.runs[0].config
    )


def _rank(label: str, columns: Sequence[Column]) -> int:
    """The rank of a method among those of the column that has the most methods."""
    _, groups, _ = max(columns, key=lambda column: len(column[1]))
    present = [group.method.label for group in groups]
    return present.index(label) if label in present else len(present)


def _cell(label: str, group: ExperimentGroup | None, published: Published | None) -> str:
    if group is None:
        return "–"
    figures = published.rows.get(group.method.label, {}) if published else {}
    last = len(group.summary.estimate) - 1
    is_policy = group.runs[0].config.domain == "rl"
    step = min(1 if is_policy else max(figures, default=last), last)
    estimate, _, interval = group.summary.format_step(step).partition(" ")
    lines = [f"**{estimate}**" + (f" after {step}" if step and not is_policy else ""), interval]
    if group.success:
        lines.append(f"success {group.success.format_step(step)}")
    if step in figures:
        lines.append(f"*published {format_figure(figures[step])}*")
    if group.label != label:  # the row has several experiments of the method apart
        lines.append(group.label)
    return "<br>".join(lines)
