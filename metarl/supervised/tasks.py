"""Tasks of supervised learning: a few examples to adapt to, and others to be judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from metarl.supervised.losses import Kind

if TYPE_CHECKING:
    from torch import Tensor

Examples = tuple["Tensor", "Tensor"]


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input, (S,) or (C, H, W)."""

    @property
    def outputs(self) -> int:
        """O, how many outputs a network for one task has."""

    @property
    def all_outputs(self) -> int:
        """How many a network for all tasks at once has: more where tasks have classes."""

    def check(self, shots: int, queries: int) -> None:
        """Raise UserError if there are too few examples for tasks of this size."""

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


class Data(Protocol):
    """A section of the config that tells where tasks come from; see `metarl.supervised.data`."""

    @property
    def name(self) -> str:
        """What a config calls it, such as `omniglot`."""

    @property
    def kind(self) -> Kind:
        """Whether numbers or classes are to be predicted."""

    @property
    def hashes(self) -> dict[str, str]:
        """Checksums of what was read, where anything was."""

    @property
    def ways(self) -> int | None:
        """How many classes a task has, of each of which a shot is an example; None of numbers."""

    def title(self, shots: int, ways: int | None = None) -> str:
        """Such as `omniglot, 5-way 1-shot`, with another number of classes where one is given."""

    def tasks(self, split: str, task_conditioned: bool = False, ways: int | None = None) -> Tasks:
        """The tasks of `train`, `validation` or `test`.

        Args:
            split: which.
            task_conditioned: whether inputs tell the task, for an oracle.
            ways: how many classes a task has, in place of the config's number.
        """
