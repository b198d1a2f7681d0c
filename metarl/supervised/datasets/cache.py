"""The cache of converted data sets: a memory-mapped array file, and a JSON file of metadata.

Decoding 30,000 image files takes seconds, while mapping an array is immediate. The name of the
files contains a fingerprint of the source, so that changed data are converted again. Both are
written atomically, the JSON file last: if it exists, the array is complete.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import atomic_write, report_os_errors, write_atomically
from metarl.progress import Progress
from metarl.supervised.datasets.source import Contents, Source

VERSION = 2  # of the conversion; increase it when the same source is converted differently

ALWAYS_VERIFIED = 2**27  # bytes; their checksum takes less than 0.1 s

Splits = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images grouped by class.

        images.images[images.starts[c]:images.starts[c + 1]]    all images of class c
        images.splits["train"]                                  the numbers of the training classes

    Attributes:
        images: (I, H, W, C) in 0...255, maybe memory-mapped.
        starts: (number of classes + 1,): class c has images `starts[c]:starts[c + 1]`.
        classes: the names of the classes, sorted.
        splits: disjoint class numbers of "train", "validation" and "test", sorted.
        checksum: sha256 of images, starts and names.
    """

    images: NDArray[np.uint8]
    starts: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: Splits
    checksum: str

    @property
    def split_hash(self) -> str:
        """Sha256 of the names of the classes in each split."""
        names = {
            split: [self.classes[number] for number in sorted(numbers)]
            for split, numbers in self.splits.items()
        }
        return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()


def checksum(images: NDArray[np.uint8], starts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Sha256 of images (I, H, W, C), starts and names of the classes."""
    return _hexdigest(hashlib.sha256(images.data), starts, classes)


def cache_folder() -> Path:
    """The folder of the cache: $METARL_CACHE, or metarl in the user's cache directory."""
    if folder := os.environ.get("METARL_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarl"


def load_converted(
    source: Source,
    split: Callable[[Sequence[str]], Splits],
    progress: Progress | None = None,
    verify: bool = False,
) -> ImageSet:
    """Load a data set from the cache, or convert it first.

    Args:
        source: the original files.
        split: splits the names of the classes, if the data define no split.
        progress: shows the progress of the conversion.
        verify: whether to verify the checksum of large data sets, which takes seconds.

    Raises:
        UserError: if the source or the cached file is corrupt, or the cache cannot be written.
    """
    file = cache_folder() / f"{source.name}-{VERSION}-{source.fingerprint()}.npy"
    if not (file.is_file() and file.with_suffix(".json").is_file()):
        _convert(source, file, progress)
    images, splits = _open(file)
    if (verify or images.images.nbytes < ALWAYS_VERIFIED) and (
        checksum(images.images, images.starts, images.classes) != images.checksum
    ):
        raise _corrupt(file, "its checksum differs from the recorded one")
    number = {name: index for index, name in enumerate(images.classes)}
    named = {
        part: np.array(sorted(number[name] for name in names), np.int64)
        for part, names in (splits or {}).items()
    }
    return replace(images, splits=named or split(images.classes))


def _open(file: Path) -> tuple[ImageSet, Mapping[str, Sequence[str]] | None]:
    """The images, and the names of the classes of each split, if the data define a split."""
    try:
        metadata = json.loads(file.with_suffix(".json").read_text())
        # the size detects truncation at no cost; the checksum needs the whole file
        if file.stat().st_size != metadata["bytes"]:
            raise ValueError(f"it has {file.stat().st_size:,} of {metadata['bytes']:,} bytes")
        images, starts = np.load(file, mmap_mode="r"), np.array(metadata["starts"], np.int64)
        if images.ndim != 4 or images.dtype != np.uint8 or len(images) != starts[-1]:
            raise ValueError(f"its shape is {images.shape}")
        splits = metadata["splits"]
        if splits and sorted(chain.from_iterable(splits.values())) != metadata["classes"]:
            raise ValueError("its splits do not contain the same classes")
        classes = tuple(metadata["classes"])
        return ImageSet(images, starts, classes, {}, metadata["checksum"]), splits
    except Exception as error:  # a corrupt file may raise anything
        raise _corrupt(file, str(error)) from error


def _convert(source: Source, file: Path, progress: Progress | None) -> None:
    contents = source.read()
    sizes = [len(pictures) for pictures in contents.classes.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # the header of an .npy file, so that images can be written one at a time, in constant memory
    header = {"descr": "|u1", "fortran_order": False, "shape": (sum(sizes), *contents.shape)}
    digest = hashlib.sha256()
    problem = f"cannot write converted images to {file.parent}"
    with report_os_errors(problem, "; set another folder with METARL_CACHE"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as output:
            np.lib.format.write_array_header_1_0(output, header)
            for image in _decode_all(contents, f"converting {source.name}", progress):
                digest.update(image.data)
                output.write(image.data)
            size = output.tell()
        metadata = {
            "bytes": size,
            "checksum": _hexdigest(digest, starts, tuple(contents.classes)),
            "splits": contents.splits,
            "starts": starts.tolist(),
            "classes": list(contents.classes),
        }
        # written last: its existence marks the array as complete
        write_atomically(file.with_suffix(".json"), json.dumps(metadata))


def _decode_all(
    contents: Contents, description: str, progress: Progress | None
) -> Iterator[NDArray[np.uint8]]:
    """All images in order, each contiguous in memory."""
    total = sum(len(pictures) for pictures in contents.classes.values())
    task = progress.add_task(description, total, unit="image") if progress else None
    for pictures in contents.classes.values():
        for picture in pictures:
            yield np.ascontiguousarray(picture())
        if task:
            task.update(task.completed + len(pictures))


def _hexdigest(digest: "hashlib._Hash", starts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    digest.update(starts.astype("<i8").tobytes())
    digest.update("\n".join(classes).encode())
    return digest.hexdigest()


def _corrupt(file: Path, reason: str) -> UserError:
    return UserError(
        f"the converted images in {file} are corrupt ({reason}); delete that file, and they are "
        "converted again"
    )
