"""Bounded reads and atomic writes."""

import errno
import io
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any
from uuid import uuid4

from metarl.errors import StorageError, UserError

fcntl: ModuleType | None
msvcrt: Any
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None
try:
    import msvcrt
except ModuleNotFoundError:
    msvcrt = None

LOCKED_BYTE = 2**30  # on Windows, where a locked byte cannot be read: beyond the file's content

# bzip2 and lzma, which zip files may use too, decompress without a bound on their output
ZIP_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ZIP_ENCRYPTED = 0x1  # bit of a member's flags

# what zipfile raises for corrupt input; RuntimeError for features that it does not support
ZIP_ERRORS = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of bounded size.

    Raises:
        OSError: if the file does not exist or cannot be read.
        ValueError: if it is larger than `max_bytes`, or not a regular file (a pipe or a device may
            never end).
    """
    if not stat.S_ISREG(path.stat().st_mode):  # checked first: opening a pipe may block
        raise ValueError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{path.name} has {size:,} bytes, more than {max_bytes:,}")
        return file.read(size)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of bounded size that the user provided.

    Raises:
        UserError: in every case in which `read_bytes` raises.
    """
    try:
        return read_bytes(path, max_bytes)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read {path} ({reason}); restore the file or its read permission"
        ) from error


def read_zip(path: Path, select: Callable[[str], bool], max_bytes: int) -> dict[str, bytes]:
    """Read the members of a zip file whose names `select` accepts.

    Neither the file nor the selected members together may be larger than `max_bytes`.

    Raises:
        UserError: if the file cannot be read; see `read_file`.
        ValueError: if it is not a zip file, corrupt, encrypted, ambiguous, compressed by an
            unsupported method, or larger than `max_bytes` when decompressed.
    """
    return unzip(read_file(path, max_bytes), select, max_bytes)


def unzip(content: bytes, select: Callable[[str], bool], max_bytes: int) -> dict[str, bytes]:
    """Like `read_zip`, for the content of a zip file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if select(member.filename)]
            # readers disagree on which of the two counts: one may check what another one loads
            if len({member.filename for member in members}) < len(members):
                raise ValueError("it has two members of the same name")
            for member in members:
                if member.flag_bits & ZIP_ENCRYPTED:
                    raise ValueError(f"its member {member.filename!r} is encrypted")
                if member.compress_type not in ZIP_COMPRESSIONS:
                    raise ValueError(f"its member {member.filename!r} uses an unsupported method")
            # declared sizes: `read` stops there, also for a member that decompresses to more
            if (size := sum(member.file_size for member in members)) > max_bytes:
                raise ValueError(f"it decompresses to {size:,} bytes, more than {max_bytes:,}")
            return {member.filename: archive.read(member) for member in members}
    except ZIP_ERRORS as error:
        raise ValueError(str(error) or type(error).__name__) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` on success.

    The temporary name is unique, because several processes may write the same file.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())  # the data must be on disk before the name points to them
        temporary.replace(path)
    finally:  # after an error; the replaced file has no temporary name any more
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file's content; readers see either the old content or the new."""
    with atomic_write(path) as output:
        output.write(content.encode() if isinstance(content, str) else content)


def lock_file(file: IO[Any]) -> None:
    """Lock an open file until it is closed or the process ends, even if forked children live on.

    Raises:
        OSError: with errno EAGAIN or EACCES if another process has locked it.
        UserError: if this Python has neither POSIX nor Windows locks.
    """
    if fcntl is not None:
        # lockf, not flock, whose locks forked children would inherit
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        raise UserError(
            "this Python has neither fcntl nor msvcrt, one of which locks a run while it is trained"
        )


def stale_temp_files(folder: Path) -> Iterator[Path]:
    """Temporary files of `atomic_write` that remain where a process was killed."""
    return folder.glob(".*.tmp")


@contextmanager
def report_os_errors(problem: str, advice: str = "") -> Iterator[None]:
    """Convert an OSError into a UserError: the problem, the system's reason, and some advice."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{problem} ({error.strerror or error}){advice}") from error


def check_writable(path: Path, advice: str = "", *, is_folder: bool = False) -> None:
    """Check that a file or a folder can be written, before the work whose result it is to hold.

    Folders on its path may be missing, if they can be created.

    Raises:
        UserError: if it cannot; with the system's reason and some advice.
    """
    with report_os_errors(f"cannot write {path}", advice):
        if path.is_dir() and not is_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = path if is_folder else path.parent
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        # not os.access, which knows neither read-only nor full disks
        with tempfile.TemporaryFile(dir=existing):
            pass


@contextmanager
def translate_os_errors(folder: Path) -> Iterator[None]:
    """Convert an OSError that occurs while writing to a run directory.

    Raises:
        StorageError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        # the system's "No such file or directory" would name a temporary file
        if not folder.is_dir():
            raise StorageError(f"the directory {folder} no longer exists ({reason})") from error
        raise StorageError(
            f"cannot write to {folder} ({reason}); earlier files are intact: free disk space "
            f"or restore write permission, then run again, or continue with --resume {folder}"
        ) from error
