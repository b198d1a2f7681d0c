"""Goals drawn as Meta-World's benchmarks draw them, so that seeds mean the same goals."""

from collections.abc import Sequence

import numpy as np

from metarl.envs.metaworld.sawyer_task import SawyerTask
from metarl.envs.world import Floats

NUM_GOALS = 50  # of each task


def benchmark_goals(tasks: Sequence[SawyerTask], seed: int) -> list[Floats]:
    """The 50 goals of each task, (50, P) each, in a benchmark with this seed.

    The original draws a goal in every one of the two passes of its reset, and keeps the second.
    """
    rng = np.random.RandomState(seed)  # the original's generator

    def draw(task: SawyerTask) -> Floats:
        while True:
            goal: Floats = rng.uniform(task.low, task.high)
            if task.accepts(goal):
                return goal

    return [np.array([[draw(task), draw(task)][1] for _ in range(NUM_GOALS)]) for task in tasks]
