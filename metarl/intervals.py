"""Intervals over several runs of a method, and of the difference of two methods.

Which interval is used depends on what varies:

    one run            tasks: `metarl.evaluation.mean_over_tasks`, success rates: Wilson's interval
    several runs       training seeds: Student's t over the means of the runs
    one run each       tasks, paired: the same over the differences in each task
    several runs each  training seeds: Welch's t, which allows for unequal variances; it covers 92%
                       or more from three runs on, and as little as 88% for two against many
    several and one    training seeds: Student's t, the lone run's variance taken to be the others'

A seed shifts the scores of all tasks of a run together, so that the runs, not the scores, are the
independent samples. With the few runs that are common, bootstrap intervals cover too little: 83%
instead of 95% for five runs, and less for the stratified bootstrap of Agarwal et al. (2021).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metarl.evaluation import (
    AdaptationCurve,
    Floats,
    Summary,
    mean_over_tasks,
    mean_rate_over_tasks,
    student_quantile,
)


def mean_over_runs(scores: Sequence[Floats]) -> Summary:
    """Mean over runs and tasks, with a Student interval over the means of the runs.

    The tasks are the same for all runs: the interval is about other training seeds, not other
    tasks.

    Args:
        scores: of each run, (N, K + 1), at least two runs.

    Raises:
        ValueError: if the runs have different numbers of tasks or stages, or there is only one.
    """
    runs, tasks, _ = np.shape(scores)
    if runs < 2:
        raise ValueError("an interval over runs needs at least two of them")
    means = np.mean(scores, axis=1)  # (runs, K + 1)
    width = student_quantile(runs - 1) * np.sqrt(means.var(axis=0, ddof=1) / runs)
    estimate = means.mean(axis=0)
    meaning = f"mean of {runs} runs × {tasks} tasks, 95% interval over runs"
    return Summary(estimate, estimate - width, estimate + width, meaning)


def summarise(scores: Sequence[Floats]) -> Summary:
    """`mean_over_tasks` of one run, `mean_over_runs` of several."""
    return mean_over_tasks(scores[0]) if len(scores) == 1 else mean_over_runs(scores)


def summarise_rates(rates: Sequence[Floats]) -> Summary:
    """`summarise` for success rates, whose intervals lie in [0, 1].

    That of several runs contains Wilson's interval over all their tasks: runs that all succeed do
    not show that every other one would.
    """
    if len(rates) == 1:
        return mean_rate_over_tasks(rates[0])
    summary, over_tasks = mean_over_runs(rates), mean_rate_over_tasks(np.concatenate(rates))
    return replace(
        summary,
        low=np.maximum(np.minimum(summary.low, over_tasks.low), 0.0),
        high=np.minimum(np.maximum(summary.high, over_tasks.high), 1.0),
    )


def summarise_success(curves: Sequence[AdaptationCurve]) -> Summary | None:
    """The success rates of runs, if they are known of all."""
    rates = [curve.success for curve in curves if curve.success is not None]
    return summarise_rates(rates) if len(rates) == len(curves) else None


def difference(first: Sequence[Floats], second: Sequence[Floats]) -> Summary:
    """Mean difference of the scores of two methods on the same tasks.

    Args:
        first: scores of each run of the first method, (N, K + 1).
        second: scores of each run of the second, (N, K + 1); or (N, 1), which is broadcast.

    Raises:
        ValueError: if the numbers of tasks differ.
    """
    runs, tasks = [len(first), len(second)], len(first[0])
    if any(len(scores) != tasks for scores in (*first, *second)):
        raise ValueError("the scores of two methods can be compared on the same tasks only")
    if runs == [1, 1]:
        # nothing is known about seeds: the interval is about other tasks for these two policies
        meaning = f"mean of {tasks} tasks, 95% interval over tasks for one seed of each"
        return replace(mean_over_tasks(first[0] - second[0]), meaning=meaning)
    means, other_means = (np.mean(scores, axis=1) for scores in (first, second))
    estimate = means.mean(axis=0) - other_means.mean(axis=0)
    if 1 in runs:
        # the lone run is one draw x of a distribution with the variance s² of the others' n runs:
        # var(mean − x) = s² (1/n + 1), with n − 1 degrees of freedom
        number = max(runs)
        several = means if runs[1] == 1 else other_means
        error = several.var(axis=0, ddof=1) * (1.0 / number + 1.0)
        quantile = student_quantile(number - 1)
        over = f"{number} runs against 1, assuming equal variance over seeds"
    else:
        # Welch (1947): s²₁/n₁ + s²₂/n₂, with the degrees of freedom of Satterthwaite
        first_error, second_error = (
            scores.var(axis=0, ddof=1) / len(scores) for scores in (means, other_means)
        )
        error = first_error + second_error
        squares = first_error**2 / (runs[0] - 1) + second_error**2 / (runs[1] - 1)
        # without any variance the width is 0, whatever the degrees of freedom
        quantile = student_quantile(
            np.where(error > 0.0, error**2 / np.maximum(squares, 1e-300), 1)
        )
        over = f"{runs[0]} and {runs[1]} runs"
    width = quantile * np.sqrt(error)
    meaning = f"mean of {tasks} tasks, 95% interval over {over}"
    return Summary(estimate, estimate - width, estimate + width, meaning)
