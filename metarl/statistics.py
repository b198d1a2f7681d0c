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


def interquartile_mean_over_runs(returns: Sequence[Floats]) -> Summary:
    """Interquartile mean over runs and tasks, with a stratified bootstrap interval.

    Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice":
    the mean of the middle half of all scores, and percentiles of it where the runs are drawn anew
    within each task. The tasks are the same for all runs, so that the interval says what another
    choice of training seeds would change.

    Args:
        returns: of each run, (N, K + 1), at least two.
    """
    scores = np.stack(returns)  # (runs, N, K + 1)
    runs, tasks, _ = scores.shape
    rng = stream(0, "bootstrap")
    draws = np.empty((RESAMPLES, scores.shape[2]))
    for draw in draws:
        chosen = rng.integers(runs, size=(runs, tasks))
        draw[:] = _interquartile_mean(scores[chosen, np.arange(tasks)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    meaning = f"interquartile mean of {runs} runs × {tasks} tasks, 95% interval over runs"
    return Summary(_interquartile_mean(scores), low, high, meaning)


def _interquartile_mean(scores: Floats) -> Floats:
    result: Floats = trim_mean(scores.reshape(-1, scores.shape[-1]), 0.25, axis=0)
    return result


def summarise(returns: Sequence[Floats]) -> Summary:
    """One run by its mean over tasks, several by their interquartile mean."""
    if len(returns) == 1:
        return mean_over_tasks(returns[0])
    return interquartile_mean_over_runs(returns)
