"""Random generators, derived from the purpose of the draws.

A stream is identified by the run's seed, the role of the draws, the iteration, and the task. It
does not depend on a global state, on the order of calls, or on the number of threads or processes.
Hence a resumed run continues exactly, and a new consumer does not change existing streams.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import torch


class RngKey(NamedTuple):
    """A position in the tree of random streams, similar to the keys of jax.

    key = RngKey(seed).fold_in(iteration)
    key.fold_in(inner_step).rng("trajectories", task)
    key.fold_in("round", 1).rng("trajectories", task)  # of no iteration or inner step
    """

    seed: int
    indices: tuple[int, ...] = ()

    def fold_in(self, *path: int | str) -> RngKey:
        """The key of a subtree: an iteration, an inner step, or a role among its siblings.

        Indices alone do not say what they count: two purposes whose indices have the same length
        need a role each, or they share their streams.
        """
        return RngKey(self.seed, self.indices + tuple(map(_word, path)))

    def rng(self, role: str, *indices: int) -> np.random.Generator:
        """A generator for one role; see `make_rng`."""
        return make_rng(self.seed, role, *self.indices, *indices)


def _word(part: int | str) -> int:
    # crc32, because Python's hash() of a string differs between processes
    return zlib.crc32(part.encode()) if isinstance(part, str) else part


def make_rng(seed: int, role: str, *indices: int) -> np.random.Generator:
    """A generator for one role, such as `make_rng(seed, "tasks", iteration)`.

    Args:
        seed: the run's seed, not negative.
        role: name of the purpose of the draws.
        indices: distinguish streams of one role: iteration, inner step, task.
    """
    # the number of indices, because SeedSequence treats [a, 0] and [a] as equal
    words = [seed, _word(role), len(indices), *indices]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def make_torch_rng(seed: int, role: str, *indices: int) -> torch.Generator:
    """Like `make_rng`, for torch."""
    generator = torch.Generator()
    generator.manual_seed(int(make_rng(seed, role, *indices).integers(2**63)))
    return generator
