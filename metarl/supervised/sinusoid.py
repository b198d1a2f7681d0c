"""Sine waves (Finn et al. 2017, section 5.1): y = A sin(x − φ), without noise."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.supervised.tasks import Episodes

LOW, HIGH = (0.1, 0.0), (5.0, np.pi)  # of amplitude and phase
INPUTS = (-5.0, 5.0)


@dataclass(frozen=True)
class SinusoidTasks:
    """Waves of random amplitude and phase; a task is the pair (A, φ).

    Attributes:
        informed: inputs are (x, A, φ) in place of x, for an oracle.
    """

    informed: bool = False

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        shard: slice = slice(None),
    ) -> Episodes:
        """Draw waves and points on them: inputs (N, K, 1) or (N, K, 3), targets (N, K, 1)."""
        tasks = rng.uniform(LOW, HIGH, (num_tasks, 2))
        x = rng.uniform(*INPUTS, (num_tasks, shots + queries, 1))
        return points(tasks[shard], x[shard], shots, self.informed)

    def describe(self, task: NDArray[np.float64]) -> str:
        """Such as `3.21 sin(x − 0.70)`."""
        return f"{task[0]:.2f} sin(x − {task[1]:.2f})"


def points(
    tasks: NDArray[np.float64], x: NDArray[np.float64], shots: int, informed: bool = False
) -> Episodes:
    """The waves (N, 2) at x (N, K, 1): the first of the points are for adaptation."""
    amplitude, phase = tasks[:, :1, None], tasks[:, 1:, None]
    y = torch.from_numpy((amplitude * np.sin(x - phase)).astype(np.float32))
    if informed:
        told = np.broadcast_to(tasks[:, None], (*x.shape[:2], 2))
        x = np.concatenate([x, told], axis=-1)
    inputs = torch.from_numpy(x.astype(np.float32))
    return Episodes(tasks, (inputs[:, :shots], y[:, :shots]), (inputs[:, shots:], y[:, shots:]))
