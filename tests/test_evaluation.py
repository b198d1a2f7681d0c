"""Intervals cover what they say."""

import numpy as np
import pytest

from metarl.evaluation import difference, mean_over_runs, mean_over_tasks

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
@pytest.mark.parametrize("others", [5, 1])
@pytest.mark.parametrize("effect", [0.0, 0.25, 0.5, 1.0])
def test_the_interval_of_a_difference_covers_what_other_seeds_would_give(
    effect: float, others: int
) -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(scale=3.0, size=TASKS)
    covered = 0
    for _ in range(REPEATS):
        first, second = (
            easy + effect * rng.normal(size=(runs, 1)) + rng.normal(size=(runs, TASKS))
            for runs in (5, others)
        )
        seen = difference([run[:, None] for run in first], [run[:, None] for run in second])
        covered += bool(seen.low[0] <= 0.0 <= seen.high[0])  # both are drawn alike
    assert covered / REPEATS >= 0.90


def test_that_tasks_are_hard_for_both_does_not_widen_a_difference() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(scale=10.0, size=(40, 1))
    first, second = easy + rng.normal(size=(2, 40, 3))
    seen = difference([first + 1.0], [second])
    np.testing.assert_allclose(seen.estimate, mean_over_tasks(first - second).estimate + 1.0)
    assert (seen.high - seen.low < 2 * 1.96 * 2.0 / np.sqrt(40)).all()
    unpaired = mean_over_tasks(first)
    assert (unpaired.high - unpaired.low > 4 * (seen.high - seen.low)).all()


def test_a_level_is_the_same_after_every_step() -> None:
    rng = np.random.default_rng(0)
    first, level = rng.normal(size=(2, 9, 3)), rng.normal(size=(9, 1))
    seen = difference(list(first), [level])
    np.testing.assert_allclose(seen.estimate, first.mean(axis=(0, 1)) - level.mean())
    # Student's of two samples, of which one is alone: one degree of freedom
    width = 12.706 * np.std(first.mean(axis=1), axis=0, ddof=1) * np.sqrt(1 / 2 + 1)
    np.testing.assert_allclose(seen.high - seen.estimate, width, rtol=1e-3)
