"""Coverage of confidence intervals."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from metarl.evaluation import mean_over_tasks
from metarl.intervals import difference, mean_over_runs

TASKS, REPEATS = 40, 200


@pytest.mark.slow
@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("effect", [0.0, 0.25, 0.5, 1.0])
def test_the_interval_over_runs_covers_where_seeds_differ_as_a_whole(
    effect: float, runs: int
) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(0.0, 2.0, TASKS)

    def run() -> np.ndarray:
        """Scores (N, 1): the tasks', the seed's effect on all of them, and noise of size one."""
        return (tasks + effect * rng.normal() + rng.normal(size=TASKS))[:, None]

    truth = tasks.mean()
    covered = 0
    for _ in range(REPEATS):
        summary = mean_over_runs([run() for _ in range(runs)])
        covered += summary.low[0] <= truth <= summary.high[0]
    assert covered / REPEATS >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("effects", [(0.0, 0.0), (1.0, 1.0), (1.0, 4.0), (4.0, 1.0), (0.25, 0.0)])
@pytest.mark.parametrize("runs", [(5, 5), (5, 3), (3, 5), (5, 1)])
def test_the_interval_of_a_difference_covers_though_one_method_varies_more_with_its_seed(
    effects: tuple[float, float], runs: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(0.0, 2.0, TASKS)
    covered = 0
    for _ in range(REPEATS):
        first, second = (
            tasks + effect * rng.normal(size=(number, 1)) + rng.normal(size=(number, TASKS))
            for effect, number in zip(effects, runs, strict=True)
        )
        # a single run is a constant
        truth = tasks.mean() - second.mean() if len(second) == 1 else 0.0
        summary = difference(first[..., None], second[..., None])
        covered += summary.low[0] <= truth <= summary.high[0]
    assert covered / REPEATS >= 0.90


def test_task_difficulty_does_not_widen_a_paired_difference() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(scale=10.0, size=(40, 1))
    first, second = easy + rng.normal(size=(2, 40, 3))
    summary = difference([first + 1.0], [second])
    np.testing.assert_allclose(summary.estimate, mean_over_tasks(first - second).estimate + 1.0)
    assert (summary.high - summary.low < 2 * 1.96 * 2.0 / np.sqrt(40)).all()
    unpaired = mean_over_tasks(first)
    assert (unpaired.high - unpaired.low > 4 * (summary.high - summary.low)).all()


def test_a_single_column_is_broadcast_over_steps() -> None:
    rng = np.random.default_rng(0)
    first, level = rng.normal(size=(2, 9, 3)), rng.normal(size=(9, 1))
    summary = difference(list(first), [level])
    np.testing.assert_allclose(summary.estimate, first.mean(axis=(0, 1)) - level.mean())
    # a single run is a constant: Student's interval with one degree of freedom
    width = 12.706 * np.std(first.mean(axis=1), axis=0, ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(summary.high - summary.estimate, width, rtol=1e-3)


def test_the_interval_of_a_difference_is_welchs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 9, 2)), 3.0 * rng.normal(size=(3, 9, 2))
    summary = difference(list(first), list(second))
    test = ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False)
    interval = test.confidence_interval(0.95)
    np.testing.assert_allclose(summary.low, interval.low)
    np.testing.assert_allclose(summary.high, interval.high)
    equal = difference([first[0]] * 3, [first[0]] * 2)
    assert not np.any([equal.estimate, equal.low, equal.high])
