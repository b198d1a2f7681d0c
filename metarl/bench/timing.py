"""Timing and memory of functions, and fresh processes for them."""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

from metarl.errors import UserError

resource: ModuleType | None
try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None

Result = TypeVar("Result")


def run_in_subprocess(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function in a fresh process, which has a peak memory of its own."""
    # a forked process would begin with this one's memory, and with locks of threads it lacks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """The median duration of several calls after a first one that warms up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    # unlike the mean, the median ignores the calls that other processes interrupted
    return statistics.median(seconds)


def peak_gigabytes() -> float:
    """The peak memory of this process; UserError on Windows."""
    if resource is None:
        raise UserError("the benchmark measures peak memory, which needs Linux or macOS")
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS: bytes, Linux: kilobytes
