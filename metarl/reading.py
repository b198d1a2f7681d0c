"""Files of strangers: read only if they are files, and only as much as they may sensibly hold."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from metarl.errors import UserError
from metarl.files import read_bounded

# bzip2 and lzma, which zip files may have too, unpack without a bound
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1  # bit of a member's flags

# what nonsense in a zip file raises; RuntimeError where a feature is not supported
DAMAGED = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_file(path: Path, limit: int) -> bytes:
    """The content of a file.

    Args:
        path: of a regular file; a pipe or a device could make one wait, or never end.
        limit: the most bytes that it may have.

    Raises:
        UserError: if it is not there, is no regular file, too large, or cannot be read.
    """
    try:
        return read_bounded(path, limit)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read {path} ({reason}); restore it, or let yourself read it"
        ) from error


def read_zip(path: Path, wanted: Callable[[str], bool], limit: int) -> dict[str, bytes]:
    """What a zip file has under the wanted names; the rest is not unpacked.

    Args:
        path: of the zip file.
        wanted: tells by its name whether a member is.
        limit: the most bytes that the file may have, and that the wanted members may unpack to.

    Raises:
        UserError: if the file cannot be read; see `read_file`.
        ValueError: with the reason, if it is no zip file, damaged, encrypted, ambiguous, compressed
            in an unusual way, or unpacks to more.
    """
    return unzip(read_file(path, limit), wanted, limit)


def unzip(content: bytes, wanted: Callable[[str], bool], limit: int) -> dict[str, bytes]:
    """As `read_zip`, of a zip file's content."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if wanted(member.filename)]
            if len({member.filename for member in members}) < len(members):
                raise ValueError("it has two members of one name")
            for member in members:
                if member.flag_bits & ENCRYPTED:
                    raise ValueError(f"{member.filename!r} in it is encrypted")
                if member.compress_type not in COMPRESSIONS:
                    raise ValueError(f"{member.filename!r} in it is compressed in an unusual way")
            if (size := sum(member.file_size for member in members)) > limit:
                raise ValueError(f"it unpacks to {size:,} bytes, more than {limit:,}")
            return {member.filename: archive.read(member) for member in members}
    except DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error
