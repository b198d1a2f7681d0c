"""95% confidence intervals over several runs of a method, and of the difference of two methods.

Which interval is used depends on what varies:

    one run            tasks: mean ± 1.96 standard errors (`metarl.evaluation.mean_over_tasks`)
    several runs       training seeds: Student's t over the means of the runs
    one run each       tasks, paired: mean ± 1.96 standard errors of the differences in each task
    several runs each  training seeds: Welch's t, which allows for unequal variances
    several and one    training seeds of the former, Student's t; the latter is a constant

A seed shifts the scores of all tasks of a run together, so that the runs, not the scores, are the
independent samples. With the few runs that are common, bootstrap intervals cover too little: two
thirds instead of 95% for five runs, and less for the stratified bootstrap of Agarwal et al. (2021).
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metarl.evaluation import Floats, Summary, mean_over_tasks


def mean_over_runs(scores: Sequence[Floats]) -> Summary:
    """Mean over runs and tasks, with a Student interval over the means of the runs.

    The tasks are the same for all runs: the interval is about other training seeds, not other
    tasks.

    Args:
        scores: of each run, (N, K + 1), at least two runs.
    """
    runs, tasks, _ = np.shape(scores)
    means = np.stack(scores).mean(axis=1)  # (runs, K + 1)
    low, high = _interval(means)
    meaning = f"mean of {runs} runs × {tasks} tasks, 95% interval over runs"
    return Summary(means.mean(axis=0), low, high, meaning)


def summarise(scores: Sequence[Floats]) -> Summary:
    """`mean_over_tasks` of one run, `mean_over_runs` of several."""
    return mean_over_tasks(scores[0]) if len(scores) == 1 else mean_over_runs(scores)


def difference(first: Sequence[Floats], second: Sequence[Floats]) -> Summary:
    """Mean difference of the scores of two methods on the same tasks.

    Args:
        first: scores of each run of the first method, (N, K + 1).
        second: scores of each run of the second, (N, K + 1); or (N, 1), which is broadcast.
    """
    runs, tasks = [len(first), len(second)], len(first[0])
    if runs == [1, 1]:
        summary = mean_over_tasks(first[0] - second[0])
        return replace(summary, meaning=f"mean of {tasks} tasks, 95% interval")
    means, other_means = (np.stack(scores).mean(axis=1) for scores in (first, second))
    estimate = means.mean(axis=0) - other_means.mean(axis=0)
    if 1 in runs:
        low, high = _interval(means - other_means)
    else:
        low, high = _interval(means, np.broadcast_to(other_means, (runs[1], means.shape[1])))
    constant = ", one run taken as a constant" if 1 in runs else ""
    seeds = " and ".join(str(number) for number in runs if number > 1)
    meaning = f"mean of {tasks} tasks, 95% interval over {seeds} runs{constant}"
    return Summary(estimate, low, high, meaning)


def _interval(means: Floats, other_means: Floats | None = None) -> tuple[Floats, Floats]:
    """Student's interval of a mean, or Welch's of a difference of means; (runs, K + 1) each."""
    # imported here: scipy.stats takes as long as torch, and every command imports this module
    from scipy.stats import ttest_1samp, ttest_ind

    with warnings.catch_warnings():  # scipy warns about runs with equal scores
        warnings.simplefilter("ignore", RuntimeWarning)
        if other_means is None:
            test = ttest_1samp(means, 0.0)
        else:
            test = ttest_ind(means, other_means, equal_var=False)
        low, high = test.confidence_interval(0.95)
    return low, high
