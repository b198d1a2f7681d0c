"""Where and by what sampling and learning are computed: devices, threads, and chunks of tasks.

Sampling is always on the processor, beside the physics. Tasks are differentiated a few at a time,
because what a few tasks compute stays in the processor's cache. They are sampled and differentiated
on every processor at once, a chunk each, because the operations of a chunk are too small to be
divided.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch.utils import _pytree as pytree

from metarl.config.sections import Device
from metarl.errors import UserError
from metarl.threads import limit_to_one_thread, processors

Tree = TypeVar("Tree")
Result = TypeVar("Result")
CPU = torch.device("cpu")
TRIM, MAP = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD


def device_for(setting: Device) -> torch.device:
    """The device that a config asks for; `auto` is a GPU where there is one.

    Under torchrun each process takes the GPU with its own number on the machine.

    Raises:
        UserError: if a GPU is asked for and there is none.
    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise UserError("device: cuda is asked for, but torch sees no GPU; use device=auto or cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def move(tree: Tree, device: torch.device) -> Tree:
    """The same tensors, in the same structure, on a device."""
    moved: Tree = pytree.tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), tree)
    return moved


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread; a decorator as well.

    Sums are then rounded alike, however many processors there are. And small operations gain
    nothing from other threads, which go on spinning for a while after each of them, on the
    processors that the physics, or other small operations, want.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Keep what is freed in the process, where the C library is glibc; for a process of our own.

    By default it gives large blocks back to the system, and every iteration pages the same
    activations in anew: a third of the time where hundreds of images are embedded at once.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(MAP, 2**25)  # bytes, the most that it takes
        libc.mallopt(TRIM, 2**31 - 1)


def map_chunks(function: Callable[[slice], Result], num_tasks: int, size: int) -> list[Result]:
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
    return ThreadPoolExecutor(count, initializer=_alone)


def _alone() -> None:
    """Torch's own threads, and the physics', would compete for the processors."""
    torch.set_num_threads(1)
    limit_to_one_thread()
