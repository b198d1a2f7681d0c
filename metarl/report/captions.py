"""Stages of adaptation and intervals in words, for plots, tables and videos."""

from collections.abc import Collection, Mapping

from metarl.evaluation import Summary
from metarl.method import ADAPTATION_UNITS, GRADIENT_STEPS, AdaptationUnit


def stage_name(stage: int, unit: AdaptationUnit | None) -> str:
    """A stage of adaptation in words; in gradient steps for a method without adaptation."""
    return (unit or GRADIENT_STEPS).stage_name(stage)


def units_label(units: Collection[AdaptationUnit | None]) -> str:
    """The label of an axis of adaptation stages in these units."""
    labels = [unit.axis_label for unit in ADAPTATION_UNITS.values() if unit in units]
    return ", or ".join(labels or [GRADIENT_STEPS.axis_label])


def describe_intervals(curves: Mapping[str, Summary]) -> str:
    """A description of estimates and intervals; where curves differ, with their labels."""
    labels: dict[str, list[str]] = {}
    for label, curve in curves.items():
        labels.setdefault(curve.meaning, []).append(label)
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{meaning} ({', '.join(group)})" for meaning, group in labels.items())
