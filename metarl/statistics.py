"""From many returns to one number and its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from metarl.randomness import stream

Floats = NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """A number for each gradient step, with the limits of its 95% interval; (K + 1,) each.

    Attributes:
        centre: the estimate.
        low: lower limits.
        high: upper limits.
        meaning: what they are, in words.
    """

    centre: Floats
    low: Floats
    high: Floats
    meaning: str


def mean_over_tasks(returns: Floats) -> Summary:
    """Mean ± 1.96 standard errors over the tasks of one run's returns (N, K + 1)."""
    centre = returns.mean(axis=0)
    width = 1.96 * returns.std(axis=0, ddof=1) / np.sqrt(len(returns))
    return Summary(
        centre, centre - width, centre + width, f"mean of {len(returns)} tasks, 95% interval"
    )


def mean_over_runs(scores: Sequence[Floats], trimmed: bool) -> Summary:
    """Mean, or interquartile mean, over runs and tasks, with a stratified bootstrap interval.

    Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice":
    percentiles of the mean where the runs are drawn anew within each task. The tasks are the same
    for all runs, so that the interval says what another choice of training seeds would change.

    Args:
        scores: of each run, (N, K + 1), at least two.
        trimmed: take the middle half of all scores alone, which no outlier moves; not for scores
            that have a bound and are near it, where the middle half is better than all.
    """
    every = np.stack(scores)  # (runs, N, K + 1)
    runs, tasks, _ = every.shape
    cut = 0.25 if trimmed else 0.0

    def centre(chosen: Floats) -> Floats:
        result: Floats = trim_mean(chosen.reshape(-1, chosen.shape[-1]), cut, axis=0)
        return result

    rng = stream(0, "bootstrap")
    draws = np.empty((RESAMPLES, every.shape[2]))
    for draw in draws:
        chosen = rng.integers(runs, size=(runs, tasks))
        draw[:] = centre(every[chosen, np.arange(tasks)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    kind = "interquartile mean" if trimmed else "mean"
    meaning = f"{kind} of {runs} runs × {tasks} tasks, 95% interval over runs"
    return Summary(centre(every), low, high, meaning)


def summarise(scores: Sequence[Floats], trimmed: bool) -> Summary:
    """One run by its mean over tasks, several by `mean_over_runs`."""
    if len(scores) == 1:
        return mean_over_tasks(scores[0])
    return mean_over_runs(scores, trimmed)


def short(value: float) -> str:
    """As many digits as mean something: `557.3`, `-11.44`, `0.00087`."""
    if abs(value) >= 100.0:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0.0 else f"{value:.2g}"
