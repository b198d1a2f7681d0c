"""Devices, threads, and chunks of tasks.

Sampling runs on the CPU, like the physics. Tasks are differentiated in chunks of a few tasks, whose
intermediate values fit into the CPU cache. Chunks are distributed over one thread per processor,
because the operations of a single chunk are too small to be parallelised.
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
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def device_for(setting: Device) -> torch.device:
    """The device for a config's `device`; `auto` selects a GPU if one is available.

    Under torchrun each process uses the GPU of its local rank.

    Raises:
        UserError: if `cuda` is requested and not available.
    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise UserError("device: cuda is not available to torch; use device=auto or device=cpu")
    # torchrun sets the rank of a process on its machine; more processes than GPUs share them
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def device_note(setting: Device) -> str:
    """A sentence on the device that a config's `device` selects."""
    device = device_for(setting)
    if device == CPU:
        reason = "" if setting == "cpu" else ", because torch finds no GPU"
        return f"device: {setting} uses the CPU{reason}"
    return f"device: {setting} uses {device}, {torch.cuda.get_device_name(device)} (experimental)"


def move(tree: Tree, device: torch.device) -> Tree:
    """Move all tensors of a pytree to a device."""
    result: Tree = pytree.tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), tree)
    return result


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread; also a decorator.

    The rounding of sums then does not depend on the number of processors. Small operations gain
    nothing from further threads, which busy-wait after each operation and block processors that
    the physics or other chunks need.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory; for processes of the command line, since it is process-wide.

    By default glibc returns large blocks to the system, so that every iteration page-faults the
    same activations in again: a third of the time when hundreds of images are embedded.
    """
    if os.name != "posix":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in macOS, nor in musl
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # bytes, the maximum of mallopt
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def map_chunks(function: Callable[[slice], Result], num_tasks: int, size: int) -> list[Result]:
    """Apply a function to slices of `size` tasks in several threads; results are in their order."""
    # their sizes do not depend on the number of threads: nor does the rounding of sums
    chunks = [slice(start, start + size) for start in range(0, num_tasks, size)]
    if len(chunks) == 1 or processors() == 1:
        with one_thread():
            return [function(chunk) for chunk in chunks]
    return list(_threads(processors()).map(function, chunks))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    # cached, because threads that persist reuse their memory arenas
    return ThreadPoolExecutor(count, initializer=_init_worker)


def _init_worker() -> None:
    # threads of torch and of the physics would compete with the other workers for processors
    torch.set_num_threads(1)
    limit_to_one_thread()
