"""The processors and the memory that this process may use."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metarl.errors import UserError

# upper limit of busy threads, for processes that share a machine
THREADS_VARIABLE = "METARL_THREADS"
_this_thread = threading.local()


def under_torchrun() -> bool:
    """Whether torchrun (`torch.distributed.run`) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_main_process() -> bool:
    """Whether this process writes files and prints: rank 0, or a process without torchrun."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def limit_to_one_thread() -> None:
    """Make `processors` return 1 in this thread, for a worker of a thread pool."""
    _this_thread.limit = 1


@contextmanager
def thread_limit(number: int) -> Iterator[None]:
    """Make `processors` return at most `number` in this thread."""
    before, _this_thread.limit = getattr(_this_thread, "limit", None), number
    try:
        yield
    finally:
        _this_thread.limit = before


def processors() -> int:
    """Number of threads that this process may keep busy.

    The available processors, divided among the local processes of torchrun, and at most
    METARL_THREADS and the limit of this thread.

    Raises:
        UserError: if METARL_THREADS is not a positive integer.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    share = max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    limit = os.environ.get(THREADS_VARIABLE, str(share))
    if not limit.isdecimal() or int(limit) < 1:
        raise UserError(f"{THREADS_VARIABLE} must be a whole number of at least 1, not {limit!r}")
    return min(share, int(limit), getattr(_this_thread, "limit", None) or share)


def physical_memory() -> int | None:
    """The machine's memory in bytes; None where the system does not say, as on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def check_num_threads(number: int) -> None:
    """Raise ValueError if a number of physics threads is negative; 0 stands for all processors."""
    if number < 0:
        raise ValueError(f"num_threads must not be negative, not {number}")
