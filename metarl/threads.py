"""How many threads torch takes for one operation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread.

    Small operations gain nothing from others, which go on spinning for a while after each of them,
    on the processors that the physics, or other small operations, want.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
