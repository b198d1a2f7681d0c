"""The overview table of a data set: every method in every setting (ways and shots)."""

from collections.abc import Sequence

from metarl.report.comparison import training_time
from metarl.report.groups import ExperimentGroup
from metarl.report.published import Published, format_figure

Column = tuple[Sequence[ExperimentGroup], Published | None]


def overview_rows(columns: Sequence[Column]) -> list[dict[str, str]]:
    """One row per method: its score, the published score and the training time in minutes.

    Scores are taken after as many steps as the published one, or after the last step where nothing
    was published.

    Args:
        columns: for each setting, the evaluated experiments and the published results.
    """
    ordered = sorted(columns, key=lambda column: _ways_and_shots(column[0][0]))
    labels = dict.fromkeys(group.label for groups, _ in ordered for group in groups)
    rows = []
    for label in labels:
        row = {"": label}
        for groups, published in ordered:
            setting = groups[0].method.problem.title.partition(", ")[2]
            group = next((group for group in groups if group.label == label), None)
            figures = published.rows.get(label, {}) if published else {}
            step = max(figures, default=None)
            row[setting] = _score(group, step) if group else "–"
            row[f"{setting}, published"] = "–" if step is None else format_figure(figures[step])
            row[f"{setting}, minutes"] = training_time(group.runs) if group else "–"
        rows.append(row)
    return rows


def _ways_and_shots(group: ExperimentGroup) -> tuple[int, int]:
    settings = group.method.problem.evaluation_settings
    return settings["ways"] or 0, settings["shots"]


def _score(group: ExperimentGroup, step: int | None) -> str:
    last = len(group.summary.estimate) - 1
    k = last if step is None else min(step, last)
    return group.summary.format_step(k) + (f" after {k}" if k else "")
