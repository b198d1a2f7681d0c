"""How many threads this process may keep busy."""

import os


def processors() -> int:
    """This process's share of the processors, among those that torchrun started beside it."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
