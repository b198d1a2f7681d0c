"""The adaptation curve: how good a model is after 0, 1, 2, ... gradient steps on new tasks.

This is the only evaluation. Meta-learned, pretrained and random models are all measured by it, on
the same tasks and with the same randomness where the seed is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metarl.dataframe import to_dataframe

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What a score is.

    Attributes:
        name: of the score, such as `return`.
        axis: the same as a plot's axis says it, such as `undiscounted return`.
        samples: what trainings are given the same number of, such as `environment steps`.
        higher_is_better: whether it is.
    """

    name: str
    axis: str
    samples: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Summary:
    """A number for each gradient step, with the limits of its 95% interval; (K + 1,) each.

    Attributes:
        estimate: the estimate.
        low: lower limits.
        high: upper limits.
        meaning: what they are, in words.
    """

    estimate: Floats
    low: Floats
    high: Floats
    meaning: str

    def after(self, steps: int) -> str:
        """The number after so many steps, such as `0.53 [0.48, 0.59]`."""
        low, high = short(self.low[steps]), short(self.high[steps])
        return f"{short(self.estimate[steps])} [{low}, {high}]"


@dataclass(frozen=True)
class AdaptationCurve:
    """Scores on unseen tasks against the number of gradient steps.

    Attributes:
        tasks: (N, T).
        scores: (N, K + 1): of each task after k updates, k = 0...K.
        step_sizes: of the K updates; empty where adaptation is no matter of gradient steps.
        episodes: of the task that were used before each stage, (K + 1,); empty where the measure
            is no return.
        instances: of each class that were seen before each stage, (K + 1,); empty where stages are
            something else.
    """

    tasks: NDArray[np.float64]
    scores: NDArray[np.float64]
    step_sizes: tuple[float, ...]
    episodes: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()

    @property
    def summary(self) -> Summary:
        """Mean over tasks, with its interval."""
        return mean_over_tasks(self.scores)

    def first(self, steps: int) -> "AdaptationCurve":
        """The curve up to so many steps."""
        return replace(
            self,
            scores=self.scores[:, : steps + 1],
            step_sizes=self.step_sizes[:steps],
            episodes=self.episodes[: steps + 1],
            instances=self.instances[: steps + 1],
        )

    def to_frame(self) -> "DataFrame":
        """A pandas frame with a row for each task and step: `task`, `step`, `score`, `episodes`.

        `task` is the number of the task, whose row in `tasks` says what it is; `episodes`, how many
        of the task were used before, is there where the measure is a return.

        Raises:
            UserError: if pandas is not installed.
        """
        return to_dataframe(
            {"task": task, "step": step, "score": score}
            | ({"episodes": self.episodes[step]} if self.episodes else {})
            for task, scores in enumerate(self.scores.tolist())
            for step, score in enumerate(scores)
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        summary = self.summary
        return {
            "mean": summary.estimate.tolist(),
            "interval_95": (summary.high - summary.estimate).tolist(),
            "step_sizes": list(self.step_sizes),
            "episodes": list(self.episodes),
            "instances": list(self.instances),
            "tasks": self.tasks.tolist(),
            "scores": self.scores.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AdaptationCurve":
        """The inverse of `to_json`; episodes of older evaluations follow from their settings."""
        scores, step_sizes = np.array(value["scores"]), tuple(value["step_sizes"])
        settings = value.get("settings", {})
        each = settings.get("episodes_per_task", settings.get("trajectories"))
        counted = [each * k for k in range(scores.shape[1])] if each else []
        episodes = value.get("episodes") or counted
        instances = tuple(value.get("instances", ()))
        return cls(np.array(value["tasks"]), scores, step_sizes, tuple(episodes), instances)


def mean_over_tasks(returns: Floats) -> Summary:
    """Mean ± 1.96 standard errors over the tasks of one run's returns (N, K + 1)."""
    estimate = returns.mean(axis=0)
    width = 1.96 * returns.std(axis=0, ddof=1) / np.sqrt(len(returns))
    return Summary(
        estimate, estimate - width, estimate + width, f"mean of {len(returns)} tasks, 95% interval"
    )


def mean_over_runs(scores: Sequence[Floats]) -> Summary:
    """Mean over runs and tasks, as it is published, with an interval over runs.

    The tasks are the same for all runs, so that the interval says what another choice of training
    seeds would change. A run is good or bad as a whole: runs, not scores, are what vary. With the
    few runs that there are, resampling them covers too little (two thirds in place of 95% for five;
    drawing runs anew within each task, as Agarwal et al. 2021 do, even less): the interval is
    Student's, over the runs' means.

    Args:
        scores: of each run, (N, K + 1), at least two.
    """
    every = np.stack(scores)  # (runs, N, K + 1)
    runs, tasks, _ = every.shape
    means = every.mean(axis=1)
    estimate = means.mean(axis=0)
    width = _width_over_runs([means])
    meaning = f"mean of {runs} runs × {tasks} tasks, 95% interval over runs"
    return Summary(estimate, estimate - width, estimate + width, meaning)


def summarise(scores: Sequence[Floats]) -> Summary:
    """One run by its mean over tasks, several by `mean_over_runs`."""
    return mean_over_tasks(scores[0]) if len(scores) == 1 else mean_over_runs(scores)


def difference(first: Sequence[Floats], second: Sequence[Floats]) -> Summary:
    """How much higher the scores of some runs are than those of others, on the same tasks.

    Of one run each, it is the mean of the differences in every task, ± 1.96 standard errors: that
    a task is hard, which is so for both, does not widen it. With more runs it is over the runs'
    means, as in `mean_over_runs`: Welch's interval, because one method may vary more with its seed
    than the other. A run that is alone on its side is taken as it is; what another seed of it
    would have changed, one run cannot say.

    Args:
        first: of each run, (N, K + 1).
        second: of each run, the same tasks in the same order, (N, K + 1) or, a level, (N, 1).
    """
    one, other = np.stack(first), np.stack(second)  # (runs, N, K + 1)
    runs, tasks = [len(one), len(other)], one.shape[1]
    if runs == [1, 1]:
        summary = mean_over_tasks(one[0] - other[0])
        return replace(summary, meaning=f"mean of {tasks} tasks, 95% interval")
    means = [scores.mean(axis=1) for scores in (one, other)]
    estimate = means[0].mean(axis=0) - means[1].mean(axis=0)
    width = _width_over_runs([each for each in means if len(each) > 1])
    alone = ", one run as it is" if 1 in runs else ""
    seeds = " and ".join(str(number) for number in runs if number > 1)
    meaning = f"mean of {tasks} tasks, 95% interval over {seeds} runs{alone}"
    return Summary(estimate, estimate - width, estimate + width, meaning)


def _width_over_runs(groups: Sequence[Floats]) -> Floats:
    """Half the 95% interval of a sum or difference of groups' means, by Welch and Satterthwaite.

    Of one group it is Student's.

    Args:
        groups: of each group the means of its runs, (runs, K + 1), at least two runs.
    """
    # imported here: it takes half a second, which who sums up one run need not wait for
    from scipy.stats import t as student_t

    errors = np.stack([group.var(axis=0, ddof=1) / len(group) for group in groups])
    error = errors.sum(axis=0)
    freedoms = np.array([[len(group) - 1] for group in groups])
    # runs that are all equal leave nothing to be divided
    with np.errstate(invalid="ignore"):
        freedom = error**2 / (errors**2 / freedoms).sum(axis=0)
    return np.where(error > 0, student_t.ppf(0.975, freedom) * np.sqrt(error), 0.0)


def short(value: float) -> str:
    """As many digits as mean something: `557.3`, `-11.44`, `0.00087`."""
    if abs(value) < 1e-12:  # what rounding leaves of scores that are equal
        return "0.00"
    if abs(value) >= 100.0:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def best_schedule(
    schedules: Sequence[tuple[float, ...]],
    validate: Callable[[tuple[float, ...]], AdaptationCurve],
    metric: Metric,
    stage: int = 1,
) -> tuple[float, ...]:
    """Of several step-size schedules, the best on validation tasks.

    Args:
        schedules: to choose from.
        validate: the adaptation curve of one, on validation tasks. A schedule with which it breaks
            down, by a FloatingPointError, is out of the race.
        metric: what decides.
        stage: after how many steps the score is to be best; 0 for the mean of all of them.

    Raises:
        FloatingPointError: if all of them break down.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    scores: dict[tuple[float, ...], float] = {}
    for schedule in schedules:
        with suppress(FloatingPointError):
            reached = validate(schedule).scores
            scores[schedule] = sign * float((reached[:, stage] if stage else reached[:, 1:]).mean())
    if not scores:
        first = [schedule[0] for schedule in schedules]
        raise FloatingPointError(
            f"every step size of baseline.step_sizes {first} breaks the model down; add smaller "
            "ones"
        )
    return max(scores, key=lambda schedule: scores[schedule])
