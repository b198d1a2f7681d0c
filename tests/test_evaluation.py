"""Intervals cover what they say."""

import numpy as np
import pytest

from metarl.evaluation import mean_over_runs

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
