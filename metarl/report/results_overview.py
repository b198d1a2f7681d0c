"""Every method on the same data, over numbers of classes and of examples, in one table."""

from collections.abc import Sequence

from metarl.report.comparison import minutes
from metarl.report.groups import Entry
from metarl.report.published import Published, in_words

Column = tuple[Sequence[Entry], Published | None]


def overview(columns: Sequence[Column]) -> list[dict[str, str]]:
    """A row for each method: its score, what was published, and the minutes that training took.

    A score is that after as many steps as the published one is of; where none was published, after
    all that were taken.

    Args:
        columns: what was evaluated in each setting, and what was published of it.
    """
    ordered = sorted(columns, key=lambda column: _size(column[0][0]))
    labels = dict.fromkeys(entry.label for entries, _ in ordered for entry in entries)
    rows = []
    for label in labels:
        row = {"": label}
        for entries, known in ordered:
            setting = entries[0].method.problem.title.partition(", ")[2]
            entry = next((entry for entry in entries if entry.label == label), None)
            figures = known.rows.get(label, {}) if known else {}
            stage = max(figures, default=None)
            row[setting] = _score(entry, stage) if entry else "–"
            row[f"{setting}, published"] = "–" if stage is None else in_words(figures[stage])
            row[f"{setting}, minutes"] = minutes(entry.runs) if entry else "–"
        rows.append(row)
    return rows


def _size(entry: Entry) -> tuple[int, int]:
    settings = entry.method.problem.evaluation_settings
    return settings["ways"] or 0, settings["shots"]


def _score(entry: Entry, stage: int | None) -> str:
    last = len(entry.summary.estimate) - 1
    k = last if stage is None else min(stage, last)
    return entry.summary.after(k) + (f" after {k}" if k else "")
