"""The table of a sweep: its varied settings and scores, the best experiment first."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metarl.dataframe import to_dataframe
from metarl.evaluation import format_score
from metarl.experiment import SEED_INDEPENDENT, all_settings, differences
from metarl.report.comparison import caption, markdown_table
from metarl.report.groups import ExperimentGroup

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
        metric = self.groups[0].method.problem.metric.name
        result = []
        for group in self.groups:
            summary = group.summary
            row = dict(zip(self.names, self._values(group), strict=True))
            row["seeds"] = ", ".join(str(run.config.seed) for run in group.runs)
            row[f"{metric} before adaptation"] = format_score(summary.estimate[0])
            row[f"{metric} after adaptation"] = format_score(summary.estimate[-1])
            row["95% interval"] = (
                f"[{format_score(summary.low[-1])}, {format_score(summary.high[-1])}]"
            )
            result.append(row)
        return result

    def to_csv(self) -> str:
        """One row per experiment: settings, seeds, and scores with their intervals."""
        metric = self.groups[0].method.problem.metric.name
        # a sweep of methods may have curves of several lengths
        stages = max(len(group.summary.estimate) for group in self.groups)
        scores = [f"{metric}_after_{k}_steps" for k in range(stages)]
        columns = [f"{score}{part}" for score in scores for part in ("", "_low", "_high")]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.names, "seeds", *columns])
        for group in self.groups:
            seeds = " ".join(str(run.config.seed) for run in group.runs)
            summary = group.summary
            limits = zip(summary.estimate, summary.low, summary.high, strict=True)
            numbers = [float(number) for stage in limits for number in stage]
            padding = [""] * (len(columns) - len(numbers))
            writer.writerow([*self._values(group), seeds, *numbers, *padding])
        return text.getvalue()

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
