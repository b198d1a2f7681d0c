"""Tasks of supervised learning: a few examples to adapt to, and others to be judged by."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Episodes:
    """Examples of N tasks.

    Attributes:
        tasks: (N, T), what they are.
        support: inputs (N, K, ...) and targets, to adapt to.
        query: the same, to be judged by.
    """

    tasks: NDArray[np.float64]
    support: Examples
    query: Examples


class Tasks(Protocol):
    """A distribution of tasks."""

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        shard: slice = slice(None),
    ) -> Episodes:
        """Draw tasks, and examples of each.

        Args:
            rng: the source of randomness.
            num_tasks: how many to draw.
            shots: examples to adapt to, in classification of each class.
            queries: the same for those to be judged by.
            shard: which of the tasks to return; what is drawn does not depend on it.
        """

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task in words."""
