"""Tasks are worked on a few at a time, and on every processor at once.

Few at a time, because what a few tasks compute stays in the processor's cache: forty at once are
slower than forty one by one. On every processor with a chunk of its own, because the operations of
a chunk are too small to be divided.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from metarl.processors import processors
from metarl.threads import one_thread

Result = TypeVar("Result")


def over_chunks(function: Callable[[slice], Result], num_tasks: int, size: int) -> list[Result]:
    """The results of a function of some tasks, in order.

    Args:
        function: called with a slice of the tasks, from several threads.
        num_tasks: how many tasks there are.
        size: how many of them a chunk has.
    """
    chunks = [slice(start, start + size) for start in range(0, num_tasks, size)]
    if len(chunks) == 1 or processors() == 1:
        with one_thread():
            return [function(chunk) for chunk in chunks]
    return list(_threads(processors()).map(function, chunks))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that stay, and with them the memory that they have at hand."""
    # each of them computes alone: torch's own threads would compete for the processors
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
