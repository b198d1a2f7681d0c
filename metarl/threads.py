"""Which share of the machine is this process's."""

import os
import threading

from metarl.errors import UserError

# how many threads a process may keep busy, whatever there are; for those that are started together
THREADS_VARIABLE = "METARL_THREADS"
_this_thread = threading.local()


def under_torchrun() -> bool:
    """Whether torchrun (or torch.distributed.run) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks, of those that torchrun started."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def limit_to_one_thread() -> None:
    """Leave this thread one processor: others beside it have the rest."""
    _this_thread.alone = True


def processors() -> int:
    """How many threads this process may keep busy, or this thread if it has taken one.

    The processors, divided among those that torchrun started beside it, but no more than the
    environment variable METARL_THREADS says.

    Raises:
        UserError: if that is no such number.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    share = max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    limit = os.environ.get(THREADS_VARIABLE, str(share))
    if not limit.isdecimal() or int(limit) < 1:
        raise UserError(f"{THREADS_VARIABLE} must be a whole number of at least 1, not {limit!r}")
    return 1 if hasattr(_this_thread, "alone") else min(share, int(limit))
