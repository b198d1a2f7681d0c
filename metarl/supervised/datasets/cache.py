"""Converted data sets: one array file that is mapped into memory, and a small JSON beside it.

To decode 30,000 image files takes seconds, to map what came of it takes none. The files are named
by a fingerprint of the source, so that changed data is converted anew. They are written beside
their place and then moved there, the JSON last: where it is, the array is whole.
"""

import hashlib
import json
import os
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import atomic_write, write_atomically
from metarl.progress import Progress
from metarl.supervised.datasets.source import Contents, Source

VERSION = 1  # of the conversion: one more wherever the same source is to give other bytes

# what nonsense in a file of the cache raises
DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,  # numpy parses the header of an array as a piece of Python
)


@dataclass(frozen=True, eq=False)
class Converted:
    """A data set as it was converted.

    Attributes:
        file: where the images are stored.
        images: (I, H, W, C), memory-mapped, the images of a class one after the other.
        starts: (number of classes + 1,): class c has images `starts[c]:starts[c + 1]`.
        classes: their names, sorted.
        splits: the names of the classes in each split, where the data fixes them.
        checksum: sha256 of images, starts and names.
    """

    file: Path
    images: NDArray[np.uint8]
    starts: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]] | None
    checksum: str

    def verify(self) -> None:
        """Compare the checksum with what is stored; reads all of it.

        Raises:
            UserError: if they differ.
        """
        if checksum(self.images, self.starts, self.classes) != self.checksum:
            raise _damaged(self.file, "its checksum is not the one it was written with")


def checksum(images: NDArray[np.uint8], starts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Sha256 of images (I, H, W, C), of where each class starts, and of the names of classes."""
    return _finished(hashlib.sha256(images.data), starts, classes)


def cache_folder() -> Path:
    """Where converted data is kept: $METARL_CACHE, or metarl in the user's cache directory."""
    if chosen := os.environ.get("METARL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarl"


def converted(source: Source, progress: Progress | None = None) -> Converted:
    """A data set, converted when it is asked for the first time.

    Args:
        source: where the data is.
        progress: shows how far the conversion is.

    Raises:
        UserError: if the source is damaged, what was converted is, or it cannot be written.
    """
    file = cache_folder() / f"{source.name}-{VERSION}-{source.fingerprint()}.npy"
    if not (file.is_file() and file.with_suffix(".json").is_file()):
        _convert(source, file, progress)
    return _open(file)


def _open(file: Path) -> Converted:
    try:
        described = json.loads(file.with_suffix(".json").read_text())
        if file.stat().st_size != described["bytes"]:
            raise ValueError(f"it has {file.stat().st_size:,} of {described['bytes']:,} bytes")
        images, starts = np.load(file, mmap_mode="r"), np.array(described["starts"], np.int64)
        if images.ndim != 4 or images.dtype != np.uint8 or len(images) != starts[-1]:
            raise ValueError(f"its shape is {images.shape}")
        splits = described["splits"]
        if splits and sorted(chain.from_iterable(splits.values())) != described["classes"]:
            raise ValueError("its splits are not those of its classes")
        return Converted(
            file,
            images,
            starts,
            tuple(described["classes"]),
            splits and {name: tuple(classes) for name, classes in splits.items()},
            described["checksum"],
        )
    except DAMAGED as error:
        raise _damaged(file, str(error)) from error


def _convert(source: Source, file: Path, progress: Progress | None) -> None:
    contents = source.read()
    sizes = [len(pictures) for pictures in contents.classes.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    header = {"descr": "|u1", "fortran_order": False, "shape": (sum(sizes), *contents.shape)}
    digest = hashlib.sha256()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as output:
            np.lib.format.write_array_header_1_0(output, header)
            for image in _decoded(contents, f"converting {source.name}", progress):
                digest.update(image.data)
                output.write(image.data)
            size = output.tell()
        described = {
            "bytes": size,
            "checksum": _finished(digest, starts, tuple(contents.classes)),
            "splits": contents.splits,
            "starts": starts.tolist(),
            "classes": list(contents.classes),
        }
        write_atomically(file.with_suffix(".json"), json.dumps(described))
    except OSError as error:
        raise UserError(
            f"cannot write converted images to {file.parent} ({error.strerror}); name another "
            "directory with METARL_CACHE"
        ) from error


def _decoded(
    contents: Contents, description: str, progress: Progress | None
) -> Iterator[NDArray[np.uint8]]:
    """All images in order, each contiguous in memory."""
    total = sum(len(pictures) for pictures in contents.classes.values())
    task = progress.add(description, total, unit="image") if progress else None
    for pictures in contents.classes.values():
        for picture in pictures:
            yield np.ascontiguousarray(picture())
        if task:
            task.update(task.done + len(pictures))


def _finished(digest: "hashlib._Hash", starts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    digest.update(starts.astype("<i8").tobytes())
    digest.update("\n".join(classes).encode())
    return digest.hexdigest()


def _damaged(file: Path, why: str) -> UserError:
    return UserError(
        f"the converted images in {file} are damaged ({why}); delete that file, and they are "
        "converted anew"
    )
