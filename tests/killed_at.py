"""Run `metarl ARGUMENTS...`, killed as by `kill -9` at the NUMBERth file operation.

    python tests/killed_at.py NUMBER ARGUMENTS...

With fewer file operations it exits as metarl does. Tests and `make soak` use it to stop a process
between any two write operations.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl.cli import main


def kill_at(number: int) -> None:
    """Count operations that change the file system; kill the process before this one."""
    count = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **keywords)

        return run

    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync = counted(os.fsync)


if __name__ == "__main__":
    kill_at(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
