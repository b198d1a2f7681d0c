"""Files that are either whole or not there, and that are no larger than they may be."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from metarl.errors import StorageError


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A new file that takes another's place once it is whole.

    Its name is its own, because several processes may write the same file at the same time.
    """
    temporary = file.with_name(f".{file.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file's content, or leave it as it was; never something in between."""
    with replacing(path) as output:
        output.write(content.encode() if isinstance(content, str) else content)


def leftovers(folder: Path) -> Iterator[Path]:
    """What `replacing` left in a folder where its process was killed."""
    return folder.glob(".*.tmp")


def read_bounded(path: Path, limit: int) -> bytes:
    """A regular file's content.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        OSError: if it is not there, or cannot be read.
        ValueError: if it is larger, or no regular file: a pipe or a device may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened, which alone may block
        raise ValueError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(
                f"{path.name} has {size:,} bytes, more than the {limit:,} that it may have"
            )
        return file.read(size)


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Say in a sentence that a run's directory cannot be written.

    Raises:
        StorageError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if not folder.is_dir():
            raise StorageError(f"the directory {folder} is gone ({reason})") from error
        raise StorageError(
            f"cannot write to {folder} ({reason}); what was saved before is whole: mend that, and "
            f"go on from there, a training with --resume {folder}"
        ) from error
