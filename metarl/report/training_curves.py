"""The scores and the time of runs in training."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation import Metric
from metarl.runs.metrics import minutes_of_training, score_names
from metarl.runs.run import Run

WINDOW = 1 / 20  # of a training, whose mean score reaches a published one


class TrainingCurve(NamedTuple):
    """The scores of a run in training, with the samples and minutes that it had used by then."""

    samples: NDArray[np.float64]
    minutes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def running_mean(self, share: float) -> NDArray[np.float64]:
        """The mean score over the latest samples, a share of those of the whole training.

        A score is the mean over the samples since the one before, so that the result does not
        depend on how often scores were reported.
        """
        ends = np.concatenate([[0.0], self.samples])
        # a mean is the difference of two integrals, over a window that starts short
        integral = np.concatenate([[0.0], np.cumsum(self.scores * np.diff(ends))])
        starts = np.maximum(self.samples - share * self.samples[-1], 0.0)
        sums = integral[1:] - np.interp(starts, ends, integral)
        means: NDArray[np.float64] = sums / (self.samples - starts)
        return means


# by label, then "before" and "after" adaptation
TrainingCurves = Mapping[str, Mapping[str, Sequence[TrainingCurve]]]


def training_curves(runs: Sequence[Run], metric: Metric) -> Mapping[str, list[TrainingCurve]]:
    """The scores of each run in training, by "before" and "after" adaptation.

    Runs without metrics, such as those of the package, are left out.

    Raises:
        UserError: if a line of the metrics is incomplete.
    """
    curves: dict[str, list[TrainingCurve]] = {"before": [], "after": []}
    for run in runs:
        metrics = run.metrics()
        if not metrics:
            continue
        samples_name = metric.samples.replace(" ", "_")
        before, after = score_names(metrics[0], metric.name)
        columns = [(name, "before") for name in before] + [(name, "after") for name in after]
        for number, line in enumerate(metrics, start=1):
            if missing := [name for name in (samples_name, *dict(columns)) if name not in line]:
                raise UserError(
                    f"line {number} of {run.path / 'metrics.jsonl'} lacks {missing[0]}: the file "
                    "is damaged, or of another version of metarl; restore it, or delete it"
                )
        samples = np.cumsum([line[samples_name] for line in metrics])
        minutes = np.array(minutes_of_training(metrics))
        for name, when in columns:
            scores = np.array([line[name] for line in metrics])
            curves[when].append(TrainingCurve(samples, minutes, scores))
    return curves


def training_time(runs: Sequence[Run]) -> str:
    """The mean training time in minutes as text; "–" if it was not recorded."""
    minutes = mean_training_minutes(runs)
    return "–" if minutes is None else format_minutes(minutes, 3)


def format_minutes(minutes: float, digits: int) -> str:
    """Minutes with so many significant digits, but without an exponent."""
    text = f"{minutes:.{digits}g}"
    return f"{minutes:.0f}" if "e" in text else text


def mean_training_minutes(runs: Sequence[Run]) -> float | None:
    """The mean training time, without evaluations and pauses; None if it was not recorded."""
    minutes = [minutes_of_training(metrics)[-1] for run in runs if (metrics := run.metrics())]
    return fmean(minutes) if minutes else None


def minutes_to_score(runs: Sequence[Run], metric: Metric, score: float) -> float | None:
    """The median over runs of the training time in minutes until a score is reached.

    It is reached when the mean after adaptation, on training tasks, over the latest twentieth of
    the samples of the training is as good.
    None if half of the runs do not reach it, or their training was not recorded.
    """
    parts = training_curves(runs, metric)
    minutes = [inf] * len(runs)
    for number, curve in enumerate(parts["after"] or parts["before"]):
        reached = metric.sign * curve.running_mean(WINDOW) >= metric.sign * score
        reached &= curve.samples >= WINDOW * curve.samples[-1]
        if reached.any():
            minutes[number] = float(curve.minutes[reached.argmax()])
    middle = median(minutes)
    return middle if isfinite(middle) else None
