"""The table of a sweep: its varied settings and scores, the best experiment first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from metarl.dataframe import to_dataframe
from metarl.evaluation import format_score
from metarl.experiment import SEED_INDEPENDENT, all_settings, differences
from metarl.report.comparison import caption, range_in_millions
from metarl.report.groups import ExperimentGroup
from metarl.report.text_tables import csv_table, markdown_table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class SweepTable:
    """The experiments of a sweep, ranked. `print` shows the table."""

    groups: Sequence[ExperimentGroup]  # the best score after the last adaptation step first
    names: Sequence[str]  # the settings in which they differ

    @classmethod
    def of(cls, groups: Sequence[ExperimentGroup]) -> "SweepTable":
        """The table of some experiments, in any order."""
        sign = groups[0].method.problem.metric.sign
        ranked = sorted(groups, key=lambda group: -sign * group.summary.estimate[-1])
        first, *others = [group.runs[0].config for group in ranked]
        # each with the first: a setting in which any two differ differs from it in one of them
        changes = [
            change for other in others for change in differences(first, other, SEED_INDEPENDENT)
        ]
        names = {change.partition(":")[0] for change in changes}
        # in the order of the best config; settings that it doesn't have come last
        order = [*all_settings(first), *sorted(names)]
        return cls(ranked, sorted(names, key=order.index))

    def __repr__(self) -> str:  # also what `print` and notebooks show
        return f"{markdown_table(self.rows())}\n\n{self.caption}\n"

    @property
    def caption(self) -> str:
        """The caption of the table."""
        return caption(self.groups)

    def rows(self) -> list[dict[str, str]]:
        """One row per experiment, by column name."""
        problem = self.groups[0].method.problem
        metric, samples = problem.metric.name, problem.metric.samples
        result = []
        for group in self.groups:
            summary = group.summary
            row = dict(zip(self.names, self._values(group), strict=True))
            row["seeds"] = ", ".join(str(run.config.seed) for run in group.runs)
            # combinations of batch sizes or iterations have different budgets
            row[samples] = range_in_millions(group.samples)
            row[f"{metric} before adaptation"] = format_score(summary.estimate[0])
            row[f"{metric} after adaptation"] = format_score(summary.estimate[-1])
            row["95% interval"] = (
                f"[{format_score(summary.low[-1])}, {format_score(summary.high[-1])}]"
            )
            result.append(row)
        return result

    def to_csv(self) -> str:
        """One row per experiment: settings, seeds, samples, and scores with their intervals."""
        metric = self.groups[0].method.problem.metric
        rows: list[dict[str, object]] = []
        for group in self.groups:
            row: dict[str, object] = dict(zip(self.names, self._values(group), strict=True))
            row["seeds"] = " ".join(str(run.config.seed) for run in group.runs)
            row[metric.samples.replace(" ", "_")] = round(fmean(group.samples))
            for step in group.steps():
                score = f"{metric.name}_after_{step['step']}_steps"
                row |= {score: step["estimate"], f"{score}_low": step["low"]}
                row[f"{score}_high"] = step["high"]
            rows.append(row)
        return csv_table(rows)

    def to_frame(self) -> "DataFrame":
        """A pandas frame with one row per experiment and step.

        Its columns are the varied settings, `step`, `estimate`, `low`, `high` and `runs`.

        Raises:
            UserError: if pandas is not installed.
        """
        return to_dataframe(
            {**{name: self._settings(group).get(name) for name in self.names}, **row}
            for group in self.groups
            for row in group.steps()
        )

    def _settings(self, group: ExperimentGroup) -> dict[str, Any]:
        return all_settings(group.runs[0].config)

    def _values(self, group: ExperimentGroup) -> list[str]:
        """The values of the varied settings as text."""
        settings = self._settings(group)
        return [_text(settings.get(name)) for name in self.names]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
