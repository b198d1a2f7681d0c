"""Tasks of few-shot learning: a support set to adapt to, and a query set to evaluate on."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.supervised.losses import TaskType

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Episodes:
    """Examples of N tasks.

    Attributes:
        tasks: the task parameters, (N, T).
        support: inputs (N, K, ...) and targets, to adapt to.
        query: inputs and targets to evaluate on.
    """

    tasks: NDArray[np.float64]
    support: Examples
    query: Examples


class Tasks(Protocol):
    """A distribution of tasks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input, (S,) or (C, H, W)."""

    @property
    def outputs(self) -> int:
        """O, the number of outputs of a network for one task."""

    @property
    def all_outputs(self) -> int:
        """The number of outputs of a network for all tasks: the number of all classes."""

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
        """Sample tasks, and examples of each.

        Args:
            rng: the source of randomness.
            num_tasks: the number of tasks.
            shots: the number of support examples; in classification, of each class.
            queries: the number of query examples, in the same way.
            shard: the tasks to return. The sampled values do not depend on it.
        """

    def describe(self, task: NDArray[np.float64]) -> str:
        """A description of a task (T,)."""


class Data(Protocol):
    """A section of the config that defines the tasks; see `metarl.supervised.data`."""

    @property
    def name(self) -> str:
        """The name in a config, such as `omniglot`."""

    @property
    def kind(self) -> TaskType:
        """Regression or classification."""

    @property
    def hashes(self) -> dict[str, str]:
        """Checksums of the data that were read, if any."""

    @property
    def ways(self) -> int | None:
        """The number of classes of a task; None in regression."""

    def title(self, shots: int, ways: int | None = None) -> str:
        """A title such as `omniglot, 5-way 1-shot`; `ways` overrides the config's number."""

    def tasks(self, split: str, task_conditioned: bool = False, ways: int | None = None) -> Tasks:
        """The tasks of a split.

        Args:
            split: `train`, `validation` or `test`.
            task_conditioned: whether the task is part of the inputs, for an oracle.
            ways: the number of classes of a task; the config's if None.
        """
