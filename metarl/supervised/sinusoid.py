"""Sinusoid regression (Finn et al. 2017, section 5.1): y = A sin(x − φ), without noise."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metarl.supervised.custom_tasks import TaskSection
from metarl.supervised.losses import REGRESSION

LOW, HIGH = (0.1, 0.0), (5.0, np.pi)  # of amplitude and phase
INPUTS = (-5.0, 5.0)


class Sinusoids:
    """Sinusoids of random amplitude and phase; a task is the pair (A, φ)."""

    kind = REGRESSION.name

    def sample_tasks(
        self, rng: np.random.Generator, num_tasks: int, split: str
    ) -> NDArray[np.float64]:
        """All splits have the same distribution."""
        return rng.uniform(LOW, HIGH, (num_tasks, 2))

    def sample(
        self, rng: np.random.Generator, tasks: NDArray[np.float64], num_examples: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return points(tasks, rng.uniform(*INPUTS, (len(tasks), num_examples, 1)))

    def describe(self, task: NDArray[np.float64]) -> str:
        return f"{task[0]:.2f} sin(x − {task[1]:.2f})"


class Sinusoid(TaskSection):
    """Sinusoids of random amplitude and phase."""

    name: Literal["sinusoid"] = "sinusoid"

    @property
    def source(self) -> Sinusoids:
        return Sinusoids()


def points(
    tasks: NDArray[np.float64], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs x (N, K, 1) and y (N, K, 1) on the sinusoids (N, 2)."""
    amplitude, phase = tasks[:, :1, None], tasks[:, 1:, None]
    return x, amplitude * np.sin(x - phase)
