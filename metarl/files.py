"""Files that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4


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
