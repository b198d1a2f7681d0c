"""The adaptation curve: scores on held-out tasks after 0, 1, 2, ... steps of adaptation.

All methods are evaluated by it. With equal seeds the tasks and the randomness are the same, so that
methods can be compared in each task. Intervals over several runs: `metarl.intervals`.
"""

from __future__ import annotations

import warnings
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
WORST = "worst 5% of tasks"  # heading of `mean_worst_tasks`
SUCCESS = "success"  # the metric of `info["success"]`
VALIDATION = "validation"  # the prefix of the scores of validations


@dataclass(frozen=True)
class Metric:
    """Description of a score.

    Attributes:
        name: short name, such as `return`.
        axis: axis label of plots, such as `undiscounted return`.
        samples: unit of the training budget, such as `environment steps`.
        higher_is_better: whether higher scores are better.
    """

    name: str
    axis: str
    samples: str
    higher_is_better: bool = True

    @property
    def sign(self) -> float:
        """The factor by which a higher score is the better one: 1, or −1 for errors."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def success(self) -> Metric:
        """The metric of `info["success"]`, which is reported beside the scores."""
        return replace(self, name=SUCCESS, axis="success rate", higher_is_better=True)


@dataclass(frozen=True)
class Summary:
    """An estimate and its 95% confidence interval after each of K adaptation steps.

    Attributes:
        estimate: (K + 1,).
        low: lower limits, (K + 1,).
        high: upper limits, (K + 1,).
        meaning: description of estimate and interval, for captions.
    """

    estimate: Floats
    low: Floats
    high: Floats
    meaning: str

    def after(self, step: int) -> str:
        """Deprecated name of `format_step`."""
        warnings.warn("after() is deprecated; use format_step()", DeprecationWarning, stacklevel=2)
        return self.format_step(step)

    def format_step(self, step: int) -> str:
        """The estimate after `step` steps with its interval, such as `0.53 [0.48, 0.59]`."""
        low, high = format_score(self.low[step]), format_score(self.high[step])
        return f"{format_score(self.estimate[step])} [{low}, {high}]"


@dataclass(frozen=True)
class AdaptationCurve:
    """Scores on N held-out tasks before adaptation and after each of K adaptation steps.

    A step is a gradient step, an episode (RL²) or an instance of each class (memory-augmented
    networks). `summary` has the mean over tasks, which `print` shows, and `to_frame` all scores.

    Attributes:
        tasks: the tasks, (N, T); T is the size of a task.
        scores: (N, K + 1): return, error or accuracy on each task after k steps, k = 0, ..., K.
        step_sizes: α of each gradient step, (K,); empty if steps are not gradient steps.
        episodes: the number of episodes used for adaptation before each score, (K + 1,); empty in
            supervised learning.
        instances: the number of instances of each class before each score, (K + 1,); empty unless
            steps are instances.
        success: the fraction of successful episodes on each task, (N, K + 1); None if the
            environments do not report `info["success"]`.
        rewards: the mean reward at each time step, (K + 1, H), over the episodes of all tasks that
            reach it; NaN where none does. None in supervised learning, and of published runs.
    """

    tasks: NDArray[np.float64]
    scores: NDArray[np.float64]
    step_sizes: tuple[float, ...]
    episodes: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    success: NDArray[np.float64] | None = None
    rewards: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        summary = self.summary
        steps = [f"step {k}: {summary.format_step(k)}" for k in range(self.scores.shape[1])]
        return "\n".join([*steps, f"({summary.meaning})"])

    @property
    def summary(self) -> Summary:
        """The mean score over tasks after each step, with its 95% confidence interval."""
        return mean_over_tasks(self.scores)

    @property
    def success_summary(self) -> Summary | None:
        """The mean success rate over tasks, likewise; None if `success` is None."""
        return None if self.success is None else mean_rate_over_tasks(self.success)

    @property
    def num_stages(self) -> int:
        """The number of stages that the curve declares: one for each column of `scores`."""
        return len(self.episodes) or len(self.instances) or len(self.step_sizes) + 1

    def first(self, steps: int) -> AdaptationCurve:
        """Deprecated name of `truncate`."""
        warnings.warn("first() is deprecated; use truncate()", DeprecationWarning, stacklevel=2)
        return self.truncate(steps)

    def truncate(self, steps: int) -> AdaptationCurve:
        """The curve up to and including step `steps`."""
        return replace(
            self,
            scores=self.scores[:, : steps + 1],
            step_sizes=self.step_sizes[:steps],
            episodes=self.episodes[: steps + 1],
            instances=self.instances[: steps + 1],
            success=None if self.success is None else self.success[:, : steps + 1],
            rewards=None if self.rewards is None else self.rewards[: steps + 1],
        )

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with a row for each task and step.

        Its columns are `task` (index into `tasks`), `step`, `score`, in reinforcement learning
        `episodes`, and `success` unless it is None.

        Raises:
            UserError: if pandas is not installed.
        """
        return to_dataframe(
            {"task": task, "step": step, "score": score}
            | ({"episodes": self.episodes[step]} if self.episodes else {})
            | ({} if self.success is None else {"success": float(self.success[task, step])})
            for task, scores in enumerate(self.scores.tolist())
            for step, score in enumerate(scores)
        )

    def to_json(self) -> dict[str, Any]:
        """All attributes and the summary, as JSON values."""
        summary = self.summary
        return {
            "mean": summary.estimate.tolist(),
            "interval_95": (summary.high - summary.estimate).tolist(),
            "step_sizes": list(self.step_sizes),
            "episodes": list(self.episodes),
            "instances": list(self.instances),
            "tasks": self.tasks.tolist(),
            "scores": self.scores.tolist(),
            **({} if self.success is None else {"success": self.success.tolist()}),
            **({} if self.rewards is None else {"rewards": _nan_to_none(self.rewards)}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AdaptationCurve:
        """The inverse of `to_json`.

        Evaluations of older versions have no `episodes`; they follow from the settings.
        """
        scores, step_sizes = np.array(value["scores"]), tuple(value["step_sizes"])
        settings = value.get("settings", {})
        per_step = settings.get("episodes_per_task", settings.get("trajectories"))
        episodes = value.get("episodes") or (
            [per_step * k for k in range(scores.shape[1])] if per_step else []
        )
        instances = tuple(value.get("instances", ()))
        success, rewards = (
            None if value.get(name) is None else np.array(value[name], dtype=np.float64)
            for name in ("success", "rewards")
        )
        return cls(
            np.array(value["tasks"]),
            scores,
            step_sizes,
            tuple(episodes),
            instances,
            success,
            rewards,
        )


def _nan_to_none(rows: Floats) -> list[list[float | None]]:
    """Rows as JSON values: JSON has no NaN."""
    return [[None if np.isnan(value) else value for value in row] for row in rows.tolist()]


def mean_over_tasks(scores: Floats) -> Summary:
    """Mean over the tasks of one run's scores (N, K + 1), N > 1, with its 95% interval.

    The interval is about other tasks for the same policy, not about other training seeds.
    """
    number = len(scores)
    if number < 2:
        raise ValueError("an interval over tasks needs at least two of them")
    estimate = scores.mean(axis=0)
    # t σ / √N with the unbiased variance
    width = student_quantile(number - 1) * scores.std(axis=0, ddof=1) / np.sqrt(number)
    meaning = f"mean of {number} tasks, 95% interval over tasks"
    return Summary(estimate, estimate - width, estimate + width, meaning)


def mean_rate_over_tasks(rates: Floats) -> Summary:
    """Mean over the tasks of one run's success rates (N, K + 1), with its 95% interval.

    The score interval of Wilson (1927): where all tasks succeed, or none, Student's interval would
    have no width. A rate p of a task varies at most as a single success does, by p (1 − p).
    """
    number = len(rates)
    estimate, z = rates.mean(axis=0), 1.96
    # the p with |estimate − p| ≤ z √(p (1 − p) / N)
    center = (estimate + z**2 / (2 * number)) / (1 + z**2 / number)
    variance = estimate * (1 - estimate) / number + (z / (2 * number)) ** 2
    width = z * np.sqrt(variance) / (1 + z**2 / number)
    meaning = f"mean of {number} tasks, 95% interval over tasks"
    # rounding must not exclude the estimates 0 and 1, which are the limits themselves
    low, high = np.minimum(center - width, estimate), np.maximum(center + width, estimate)
    return Summary(estimate, np.maximum(low, 0.0), np.minimum(high, 1.0), meaning)


def student_quantile(degrees_of_freedom: float | Floats) -> Floats:
    """The 97.5% quantile of Student's t: half the width of a 95% interval in standard errors."""
    from scipy.special import stdtrit  # imported here: every command imports this module

    quantile: Floats = stdtrit(degrees_of_freedom, 0.975)
    return quantile


def mean_worst_tasks(scores: Sequence[Floats], metric: Metric) -> Floats:
    """The mean score of the worst 5% of tasks, rounded up to a whole task, at each stage.

    This is the conditional value at risk (CVaR). The worst tasks of one stage may be others than
    those of the next. For the scores of several runs, (N, K + 1) each, it is the mean over runs.
    """
    ordered = np.sort(metric.sign * np.array(scores), axis=1)  # (runs, N, K + 1), the worst first
    number = -(-ordered.shape[1] // 20)  # ⌈N / 20⌉
    worst: Floats = metric.sign * ordered[:, :number].mean(axis=(0, 1))
    return worst


def format_score(value: float) -> str:
    """A score with its significant digits: `557.3`, `-11.44`, `0.00087`."""
    if abs(value) < 1e-12:  # rounding errors of a difference of equal scores
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
    """Select the step-size schedule with the best score on validation tasks.

    `validate` computes the adaptation curve of a candidate; those for which it raises
    FloatingPointError are skipped. Scores are compared after `stage` steps, or if it is 0 by their
    mean over all steps.

    Raises:
        FloatingPointError: if every candidate diverges.
    """
    scores: dict[tuple[float, ...], float] = {}
    for schedule in schedules:
        with suppress(FloatingPointError):
            curve = validate(schedule).scores
            mean = float((curve[:, stage] if stage else curve[:, 1:]).mean())
            scores[schedule] = metric.sign * mean
    if not scores:
        first = [schedule[0] for schedule in schedules]
        raise FloatingPointError(
            f"adaptation diverges with every step size of baseline.step_sizes {first}; add smaller "
            "ones"
        )
    # in a tie, the first in the order of the config
    return max(scores, key=lambda schedule: scores[schedule])
