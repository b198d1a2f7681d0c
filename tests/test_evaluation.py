"""Coverage of confidence intervals, and the mean of the worst tasks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind
from scipy.stats import t as student

from metarl.evaluation import (
    Floats,
    Summary,
    mean_over_tasks,
    mean_rate_over_tasks,
    mean_worst_tasks,
)
from metarl.intervals import difference, mean_over_runs, summarise_rates
from metarl.rl.problem import RETURN

TASKS = 40
REPEATS = 2000  # columns of the scores: each is a simulated evaluation of its own


def coverage(summary: Summary, truth: float | Floats) -> float:
    return float(((summary.low <= truth) & (truth <= summary.high)).mean())


def simulate_runs(
    rng: np.random.Generator, runs: int, spread: float, tasks: Floats, noise: float = 1.0
) -> list[Floats]:
    """Scores of runs: those of the tasks, a shift of all tasks for each seed, and noise."""
    shape = len(tasks), REPEATS
    return [
        tasks + spread * rng.normal(size=(1, REPEATS)) + noise * rng.normal(size=shape)
        for _ in range(runs)
    ]


@pytest.mark.parametrize("number", [2, 3, 5, 10, 29, 30, 40])
def test_the_interval_over_tasks_covers_the_mean_of_the_family(number: int) -> None:
    scores = np.random.default_rng(0).normal(3.0, 2.0, (number, REPEATS))
    assert 0.93 <= coverage(mean_over_tasks(scores), 3.0) <= 0.97


@pytest.mark.parametrize("number", [10, 50, 400])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("episodes", [1, 10])
def test_the_interval_of_a_success_rate_covers_it(number: int, rate: float, episodes: int) -> None:
    rng = np.random.default_rng(0)
    rates = rng.binomial(episodes, rate, (number, REPEATS)) / episodes
    assert coverage(mean_rate_over_tasks(rates), rate) >= 0.9  # near 0 and 1 it jumps, as all do


@pytest.mark.parametrize("successes", [0, 1, 25, 49, 50])
def test_the_interval_of_a_success_rate_is_wilsons(successes: int) -> None:
    rates = np.repeat([[1.0], [0.0]], [successes, 50 - successes], axis=0)
    summary = mean_rate_over_tasks(rates)
    expected = binomtest(successes, 50).proportion_ci(method="wilson")
    np.testing.assert_allclose([summary.low[0], summary.high[0]], expected, rtol=1e-4, atol=1e-6)


def test_the_interval_of_success_rates_over_runs_lies_between_zero_and_one() -> None:
    summary = summarise_rates([np.full((5, 1), rate) for rate in (0.9, 1.0, 1.0)])
    assert summary.high[0] == 1.0
    over_tasks = mean_rate_over_tasks(np.repeat([[0.9], [1.0]], [5, 10], axis=0))
    over_runs = mean_over_runs([np.full((5, 1), r) for r in (0.9, 1.0, 1.0)])
    assert summary.low[0] == min(over_runs.low[0], over_tasks.low[0])


def test_runs_that_all_succeed_do_not_have_an_interval_of_zero_width() -> None:
    summary = summarise_rates([np.ones((50, 1))] * 3)
    expected = binomtest(150, 150).proportion_ci(method="wilson")
    assert summary.low[0] == pytest.approx(expected.low, abs=1e-6)


@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.25, 2.0])
def test_the_interval_over_runs_covers_the_mean_over_seeds(runs: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(0.0, 2.0, (TASKS, 1))
    summary = mean_over_runs(simulate_runs(rng, runs, spread, tasks))
    assert 0.93 <= coverage(summary, tasks.mean()) <= 0.97


@pytest.mark.parametrize("number", [3, 40])
def test_the_interval_of_two_runs_covers_their_difference_on_other_tasks(number: int) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(0.0, 5.0, (number, REPEATS))  # as hard for one method as for the other
    first, second = tasks + rng.normal(1.0, 1.0, (2, number, REPEATS))
    summary = difference([first], [second])
    assert 0.93 <= coverage(summary, 0.0) <= 0.97
    assert "over tasks for one seed of each" in summary.meaning


@pytest.mark.parametrize("runs", [(2, 1), (3, 1), (1, 5), (10, 1)])
def test_the_interval_of_several_runs_and_one_covers_the_difference_over_seeds(
    runs: tuple[int, int],
) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(0.0, 2.0, (TASKS, 1))
    first, second = (simulate_runs(rng, number, 1.5, tasks) for number in runs)
    summary = difference(first, second)
    assert 0.93 <= coverage(summary, 0.0) <= 0.97
    assert f"{max(runs)} runs against 1, assuming equal variance over seeds" in summary.meaning


@pytest.mark.parametrize("spreads", [(0.0, 0.0), (1.0, 1.0), (1.0, 4.0), (4.0, 1.0), (0.25, 0.0)])
@pytest.mark.parametrize("runs", [(5, 5), (5, 3), (2, 3)])
def test_the_interval_of_several_runs_each_covers_the_difference_over_seeds(
    spreads: tuple[float, float], runs: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(0.0, 2.0, (TASKS, 1))
    first, second = (simulate_runs(rng, *pair, tasks) for pair in zip(runs, spreads, strict=True))
    # Welch's interval is approximate: 92% where the fewer of two or three runs vary the most
    assert coverage(difference(first, second), 0.0) >= 0.91


def test_task_difficulty_does_not_widen_a_paired_difference() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(scale=10.0, size=(40, 1))
    first, second = easy + rng.normal(size=(2, 40, 3))
    summary = difference([first + 1.0], [second])
    np.testing.assert_allclose(summary.estimate, mean_over_tasks(first - second).estimate + 1.0)
    assert (summary.high - summary.low < 2 * 1.96 * 2.0 / np.sqrt(40)).all()
    unpaired = mean_over_tasks(first)
    assert (unpaired.high - unpaired.low > 4 * (summary.high - summary.low)).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_interval_of_a_lone_run_adds_its_own_variance_and_broadcasts_its_column(
    sign: float,
) -> None:
    rng = np.random.default_rng(0)
    several, lone = rng.normal(size=(4, 9, 3)), rng.normal(size=(9, 1))
    summary = difference([*several], [lone]) if sign > 0 else difference([lone], [*several])
    means = several.mean(axis=1)
    np.testing.assert_allclose(summary.estimate, sign * (means.mean(axis=0) - lone.mean()))
    width = student.ppf(0.975, 3) * np.std(means, axis=0, ddof=1) * np.sqrt(1.0 / 4.0 + 1.0)
    np.testing.assert_allclose(summary.high - summary.estimate, width)
    np.testing.assert_allclose(summary.estimate - summary.low, width)


def test_the_interval_of_a_difference_is_welchs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 9, 2)), 3.0 * rng.normal(size=(3, 9, 2))
    summary = difference(list(first), list(second))
    test = ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(summary.low, interval.low)
    np.testing.assert_allclose(summary.high, interval.high)
    equal = difference([first[0]] * 3, [first[0] - 1.0] * 2)
    np.testing.assert_allclose([equal.estimate, equal.low, equal.high], 1.0)


def test_scores_that_cannot_be_summarised_are_refused() -> None:
    scores = np.zeros((4, 2))
    with pytest.raises(ValueError, match="at least two"):
        mean_over_tasks(scores[:1])
    with pytest.raises(ValueError, match="at least two"):
        mean_over_runs([scores])
    for second in ([scores[:3]], [scores, scores[:1]]):
        with pytest.raises(ValueError, match="same tasks only"):
            difference([scores], second)


@pytest.mark.parametrize(("number", "worst"), [(2, 1), (20, 1), (21, 2), (40, 2), (400, 20)])
def test_the_worst_tasks_are_a_twentieth_of_them_at_each_stage(number: int, worst: int) -> None:
    runs = np.random.default_rng(number).normal(size=(2, number, 3))
    returns = [[sum(sorted(run[:, k])[:worst]) / worst for k in range(3)] for run in runs]
    np.testing.assert_allclose(mean_worst_tasks([*runs], RETURN), np.mean(returns, axis=0))
    errors = [[sum(sorted(run[:, k])[-worst:]) / worst for k in range(3)] for run in runs]
    error = replace(RETURN, higher_is_better=False)
    np.testing.assert_allclose(mean_worst_tasks([*runs], error), np.mean(errors, axis=0))
