"""One meta-learner less the others, on the same tasks: who is better, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

from metarl.evaluation import Summary, difference
from metarl.report.groups import Entry, meta_learners, other_evaluation
from metarl.report.plots import meanings, stage_name


@dataclass(frozen=True)
class Difference:
    """How much higher the scores of one experiment are than those of another, on the same tasks.

    Attributes:
        first: whose.
        second: than whose.
        summary: at each stage of the first; one without stages is a level, the same at each.
    """

    first: Entry
    second: Entry
    summary: Summary


def paired(entries: Sequence[Entry]) -> list[Difference]:
    """A meta-learner less each that adapts in the same way, or not at all, and was measured alike.

    It is the one that can be compared with the most; of these that of the most seeds, then the one
    whose budget the most others have, then the first.
    """
    metas = meta_learners(entries)
    if not metas:
        return []

    def others(first: Entry) -> list[Entry]:
        return [other for other in entries if other is not first and _alike(first, other)]

    def preference(first: Entry) -> tuple[int, int, int]:
        budgets = [other.method.max_samples for other in others(first)]
        return len(budgets), len(first.runs), budgets.count(first.method.max_samples)

    first = max(metas, key=preference)
    return [_difference(first, other) for other in others(first)]


def _alike(first: Entry, other: Entry) -> bool:
    same_axis = other.method.adaptation_unit in (first.method.adaptation_unit, None)
    return same_axis and not other_evaluation(first.method, other.method)


def _difference(first: Entry, second: Entry) -> Difference:
    stages = len(first.summary.estimate)
    level = len(second.summary.estimate) == 1
    common = stages if level else min(stages, len(second.summary.estimate))
    mine = [curve.scores[:, :common] for curve in first.curves]
    others = [curve.scores[:, : 1 if level else common] for curve in second.curves]
    return Difference(first, second, difference(mine, others))


def paired_rows(differences: Sequence[Difference]) -> list[dict[str, str]]:
    """A table of differences: a row for each other experiment, by column name."""
    stages = max(len(each.summary.estimate) for each in differences)
    return [
        {f"{each.first.label} less": each.second.label}
        | {
            stage_name(k, each.first.method.adaptation_unit): (
                each.summary.after(k) if k < len(each.summary.estimate) else "–"
            )
            for k in range(stages)
        }
        for each in differences
    ]


def paired_meaning(differences: Sequence[Difference]) -> str:
    """What the numbers of the table of differences are, in a sentence or two."""
    metric = differences[0].first.method.problem.metric
    said = meanings({each.second.label: each.summary for each in differences})
    return (
        f"Differences in {metric.axis} on the same unseen tasks: {said}. {better(differences[0])}"
    )


def better(pair: Difference) -> str:
    """Which way a difference is good, in a sentence."""
    side = "Above" if pair.first.method.problem.metric.higher_is_better else "Below"
    return f"{side} 0, {pair.first.label} is better."
