"""N-way K-shot classification of images (Vinyals et al. 2016)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.supervised.datasets.cache import ImageSet
from metarl.supervised.tasks import Episodes

ROTATIONS = 4  # of 90 degrees


@dataclass(frozen=True)
class ImageTasks:
    """Tasks of `ways` random classes of one split.

    A task (ways,) holds the classes in the order of their labels, each as its index in the split.
    With `rotated`, a class rotated by a multiple of 90° is another class (Santoro et al. 2016), and
    the number in the task is 4 · index + rotation.

    Attributes:
        images: all images.
        split: `train`, `validation` or `test`.
        ways: the number of classes of a task.
        rotated: whether classes are rotated, support and query alike.
        setting: the setting of `ways`, for error messages.
    """

    images: ImageSet
    split: str
    ways: int
    rotated: bool
    setting: str = "data.ways"

    @property
    def shape(self) -> tuple[int, ...]:
        height, width, channels = self.images.images.shape[1:]
        return channels, height, width

    @property
    def outputs(self) -> int:
        return self.ways

    @property
    def all_outputs(self) -> int:
        """The number of all classes of the split, including rotations."""
        return len(self.images.splits[self.split]) * (ROTATIONS if self.rotated else 1)

    def check(self, shots: int, queries: int) -> None:
        classes = self.images.splits[self.split]
        if len(classes) < self.ways:
            lower = f"set {self.setting} to at most {len(classes)}, or " * (len(classes) > 1)
            raise UserError(
                f"{self.setting}={self.ways} is more than the {len(classes)} classes for "
                f"{self.split}; {lower}use more classes"
            )
        counts = np.diff(self.images.starts)[classes]
        if counts.min() < shots + queries:
            smallest = self.images.classes[classes[counts.argmin()]]
            section = "inner" if self.split == "train" else "evaluation"
            raise UserError(
                f"class {smallest} has {counts.min()} images, fewer than the {shots} shots and "
                f"{queries} queries of an episode; lower {section}.shots or {section}.queries"
            )

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        shard: slice = slice(None),
    ) -> Episodes:
        """Sample episodes: inputs (N, ways·K, C, H, W) in 0...1, labels (N, ways·K)."""
        classes = self.images.splits[self.split]
        counts = np.diff(self.images.starts)
        indices = _choose(rng, np.full(num_tasks, len(classes)), self.ways)
        numbers = classes[indices]  # (N, ways)
        within = _choose(rng, counts[numbers].ravel(), shots + queries)
        rotations = rng.integers(ROTATIONS if self.rotated else 1, size=numbers.shape)
        # all tasks are sampled before the shard is taken, so that the shards agree on the tasks;
        # images are read for the shard only
        indices, numbers, rotations = indices[shard], numbers[shard], rotations[shard]
        within = within.reshape(num_tasks, self.ways, -1)[shard]

        # image j of class c is at starts[c] + j: (N, ways, K + Q, H, W, C)
        pictures = np.asarray(self.images.images[self.images.starts[numbers][..., None] + within])
        for rotation in range(1, ROTATIONS if self.rotated else 1):
            chosen = rotations == rotation
            # of all images of the class, in support and query
            pictures[chosen] = np.rot90(pictures[chosen], rotation, axes=(2, 3))
        # shot-major, so that the first K · ways examples are the support set:
        # (N, ways, K + Q, H, W, C) to inputs (N, K + Q, ways, C, H, W)
        inputs = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, (2, 5), (1, 3))))
        inputs = inputs.float().div_(255.0)
        labels = torch.arange(self.ways).expand(inputs.shape[:3])
        support = (inputs[:, :shots].flatten(1, 2), labels[:, :shots].flatten(1, 2))
        query = (inputs[:, shots:].flatten(1, 2), labels[:, shots:].flatten(1, 2))
        tasks = indices * ROTATIONS + rotations if self.rotated else indices
        return Episodes(tasks.astype(np.float64), support, query)

    def describe(self, task: NDArray[np.float64]) -> str:
        indices = task.astype(np.int64) // (ROTATIONS if self.rotated else 1)
        numbers = self.images.splits[self.split][indices]
        return ", ".join(self.images.classes[number] for number in numbers)


def _choose(rng: np.random.Generator, counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """For each of R counts, `size` distinct indices below it in random order, (R, size)."""
    # the order of random keys is a random permutation; keys beyond a row's count sort last
    keys = rng.random((len(counts), counts.max()))
    keys[np.arange(counts.max()) >= counts[:, None]] = 2.0
    # a partition finds the smallest keys in linear time; only those need to be sorted
    smallest = np.argpartition(keys, size - 1, axis=1)[:, :size]
    order = np.take_along_axis(keys, smallest, axis=1).argsort(axis=1)
    return np.take_along_axis(smallest, order, axis=1)
