"""Every random draw comes from a generator that is derived from what it is for.

A stream is named by the run's seed, the role that the draws play, the iteration, and the task.
Nothing else enters: not the global state, not the order of calls, not the number of threads or
processes. So a resumed run continues exactly, and a new consumer disturbs nobody else's stream.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


class RngKey(NamedTuple):
    """Where a stream stands among all of a run: its seed, and the indices that lead to it.

    key = RngKey(seed).fold_in(iteration)
    key.fold_in(inner_step).rng("trajectories", task)
    """

    seed: int
    indices: tuple[int, ...] = ()

    def fold_in(self, *indices: int) -> RngKey:
        """The key of a part: of an iteration, of an inner step."""
        return RngKey(self.seed, self.indices + indices)

    def rng(self, role: str, *indices: int) -> np.random.Generator:
        """A generator for one role; see `make_rng`."""
        return make_rng(self.seed, role, *self.indices, *indices)


def make_rng(seed: int, role: str, *indices: int) -> np.random.Generator:
    """A generator for one role, such as `make_rng(seed, "tasks", iteration)`.

    Args:
        seed: the run's seed, not negative.
        role: what the draws are for, in a word.
        indices: what tells streams of one role apart: iteration, inner step, task.
    """
    # the role's name is hashed by content: Python's own hash() differs from run to run
    # and indices are counted, because SeedSequence takes [a, 0] and [a] for the same
    words = [seed, zlib.crc32(role.encode()), len(indices), *indices]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def make_torch_rng(seed: int, role: str, *indices: int) -> torch.Generator:
    """The same as `make_rng`, for torch."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(int(make_rng(seed, role, *indices).integers(2**63)))
    return generator
