"""Paired differences between a meta-learner and other methods on the same tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from metarl.evaluation import Summary
from metarl.intervals import difference
from metarl.report.captions import describe_intervals, stage_name
from metarl.report.groups import ExperimentGroup, evaluation_differences, meta_learners


@dataclass(frozen=True)
class PairedDifference:
    """The scores of a reference experiment minus those of another, on the same tasks.

    Attributes:
        reference: the first of both.
        other: the second of both.
        summary: the difference at each stage of the reference. The score of a method without
            adaptation is the same at every stage.
    """

    reference: ExperimentGroup
    other: ExperimentGroup
    summary: Summary


def paired_differences(groups: Sequence[ExperimentGroup]) -> list[PairedDifference]:
    """Differences between one meta-learner and each method that is comparable with it.

    Comparable methods have the same adaptation unit or don't adapt, and the same evaluation
    settings. The reference is the meta-learner with the most comparable methods; among equals, one
    that does not start from another run, then the one with the most seeds, then the one with the
    most common training budget, then the first.
    """
    candidates = [
        (meta, [other for other in groups if other is not meta and _comparable(meta, other)])
        for meta in meta_learners(groups)
    ]
    if not candidates:
        return []

    def preference(
        candidate: tuple[ExperimentGroup, list[ExperimentGroup]],
    ) -> tuple[int, bool, int, int]:
        meta, methods = candidate
        budgets = [group.method.max_samples for group in methods]
        from_nothing = meta.runs[0].config.init_from is None
        same_budget = budgets.count(meta.method.max_samples)
        return len(methods), from_nothing, len(meta.runs), same_budget

    reference, methods = max(candidates, key=preference)
    return [_difference(reference, group) for group in methods]


def _comparable(reference: ExperimentGroup, other: ExperimentGroup) -> bool:
    same_unit = other.method.adaptation_unit in (reference.method.adaptation_unit, None)
    return same_unit and not evaluation_differences(reference.method, other.method)


def _difference(reference: ExperimentGroup, other: ExperimentGroup) -> PairedDifference:
    stages = len(reference.summary.estimate)
    adapts = len(other.summary.estimate) > 1
    common = min(stages, len(other.summary.estimate)) if adapts else stages
    # one column of a method without adaptation is broadcast over the stages
    minuend = [curve.scores[:, :common] for curve in reference.curves]
    subtrahend = [curve.scores[:, : common if adapts else 1] for curve in other.curves]
    return PairedDifference(reference, other, difference(minuend, subtrahend))


def paired_rows(differences: Sequence[PairedDifference]) -> list[dict[str, str]]:
    """The table of differences: one row per method, by column name."""
    stages = max(len(pair.summary.estimate) for pair in differences)
    return [
        {f"{pair.reference.label} −": pair.other.label}
        | {
            stage_name(k, pair.reference.method.adaptation_unit): (
                pair.summary.format_step(k) if k < len(pair.summary.estimate) else "–"
            )
            for k in range(stages)
        }
        for pair in differences
    ]


def paired_caption(differences: Sequence[PairedDifference]) -> str:
    """The caption of the table of differences."""
    metric = differences[0].reference.method.problem.metric
    intervals = describe_intervals({pair.other.label: pair.summary for pair in differences})
    return (
        f"Paired differences in {metric.axis} on held-out tasks: {intervals}. "
        f"{sign_note(differences[0])}"
    )


def sign_note(pair: PairedDifference) -> str:
    """A sentence that says which sign of a difference is an improvement."""
    sign = "Positive" if pair.reference.method.problem.metric.higher_is_better else "Negative"
    return f"{sign} values favour {pair.reference.label}."
