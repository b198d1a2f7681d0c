"""Run `metarl ARGUMENTS...` and die, as by `kill -9`, at the NUMBERth file operation in a run.

    python tests/killed_at.py NUMBER ARGUMENTS...

Exits as metarl does where there are not so many. It is how tests and `make soak` stop a process
between any two steps of what it writes, without waiting for chance.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl import files
from metarl.cli import main


def dying_at(number: int) -> None:
    """Count what changes the file system, and be killed before the one of this number."""
    seen = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **keywords: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **keywords)

        return count

    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    files.os.fsync = counted(os.fsync)


if __name__ == "__main__":
    dying_at(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
