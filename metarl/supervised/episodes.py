"""N-way K-shot classification of images (Vinyals et al. 2016)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.supervised.datasets.images import ImageSet
from metarl.supervised.tasks import Episodes

TURNS = 4  # of 90 degrees


@dataclass(frozen=True)
class ImageTasks:
    """Classes of one split, some of them at a time, in random order.

    A task is the classes in the order of their labels, each as its place in the split. With
    `turned`, a class turned by a multiple of 90° is one of its own, and has 4 · place + turn.

    Attributes:
        images: all of them.
        split: `train`, `validation` or `test`.
        ways: how many classes a task has.
        turned: whether classes are turned (Santoro et al. 2016), support and query alike.
    """

    images: ImageSet
    split: str
    ways: int
    turned: bool

    @property
    def num_classes(self) -> int:
        """How many classes there are, each turn of one counted for itself."""
        return len(self.images.splits[self.split]) * (TURNS if self.turned else 1)

    def check(self, shots: int, queries: int) -> None:
        """Raise UserError if there are too few classes, or too few images in one."""
        classes = self.images.splits[self.split]
        if len(classes) < self.ways:
            raise UserError(
                f"data.ways={self.ways} is more than the {len(classes)} classes for {self.split}"
            )
        counts = np.diff(self.images.starts)[classes]
        if counts.min() < shots + queries:
            fewest = self.images.classes[classes[counts.argmin()]]
            raise UserError(
                f"class {fewest} has {counts.min()} images, fewer than the {shots} shots and "
                f"{queries} queries of an episode; lower shots or queries"
            )

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        share: slice = slice(None),
    ) -> Episodes:
        """Draw episodes: inputs (N, ways·K, C, H, W) in 0...1, labels (N, ways·K)."""
        classes = self.images.splits[self.split]
        counts = np.diff(self.images.starts)
        places = _choose(rng, np.full(num_tasks, len(classes)), self.ways)
        numbers = classes[places]  # (N, ways)
        within = _choose(rng, counts[numbers].ravel(), shots + queries)
        turns = rng.integers(TURNS if self.turned else 1, size=numbers.shape)
        places, numbers, turns = places[share], numbers[share], turns[share]
        within = within.reshape(num_tasks, self.ways, -1)[share]

        pictures = np.asarray(self.images.images[self.images.starts[numbers][..., None] + within])
        for turn in range(1, TURNS if self.turned else 1):
            chosen = turns == turn
            pictures[chosen] = np.rot90(pictures[chosen], turn, axes=(2, 3))
        # (N, ways, K + Q, H, W, C) to inputs (N, K + Q, ways, C, H, W)
        inputs = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, (2, 5), (1, 3))))
        inputs = inputs.float().div_(255.0)
        labels = torch.arange(self.ways).expand(inputs.shape[:3])
        support = (inputs[:, :shots].flatten(1, 2), labels[:, :shots].flatten(1, 2))
        query = (inputs[:, shots:].flatten(1, 2), labels[:, shots:].flatten(1, 2))
        tasks = places * TURNS + turns if self.turned else places
        return Episodes(tasks.astype(np.float64), support, query)

    def describe(self, task: NDArray[np.float64]) -> str:
        """The names of its classes, in the order of their labels."""
        places = task.astype(np.int64) // (TURNS if self.turned else 1)
        numbers = self.images.splits[self.split][places]
        return ", ".join(self.images.classes[number] for number in numbers)


def _choose(rng: np.random.Generator, counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Of so many each (R,) choose some, (R, size), without repetition and in random order."""
    keys = rng.random((len(counts), counts.max()))
    keys[np.arange(counts.max()) >= counts[:, None]] = 2.0  # those that there are not come last
    first = np.argpartition(keys, size - 1, axis=1)[:, :size]
    order = np.take_along_axis(keys, first, axis=1).argsort(axis=1)
    return np.take_along_axis(first, order, axis=1)
