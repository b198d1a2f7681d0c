"""The original files of a data set, before conversion."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import report_os_errors

SPLITS = ("train", "validation", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")

ImageReader = Callable[[], NDArray[np.uint8]]  # decodes one image, (H, W, C)


@dataclass(frozen=True)
class Contents:
    """The contents of a data set. Images are decoded later.

    Attributes:
        shape: height, width and channels of every image.
        classes: the images of each class. Classes and images are sorted.
        splits: the classes of each split, if the data define a split.
    """

    shape: tuple[int, int, int]
    classes: Mapping[str, Sequence[ImageReader]]
    splits: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class Source:
    """The location of a data set. Finding it is cheap; reading it is not.

    Attributes:
        name: the name of the data set.
        form: a description of the file format.
        folder: the folder that contains it.
        files: all of its files.
        read: lists the contents. It raises UserError if they are corrupt or incomplete.
    """

    name: str
    form: str
    folder: Path
    files: Sequence[Path]
    read: Callable[[], Contents]

    def fingerprint(self) -> str:
        """A hash of the names, sizes and modification times of the files, 16 hexadecimal digits.

        Raises:
            UserError: if a file cannot be accessed, such as a broken link.
        """
        # modification times instead of contents: reading all files would take as long as converting
        digest = hashlib.sha256(self.name.encode())
        for file in sorted(self.files):
            with report_os_errors(f"cannot access {file}", "; restore or remove it"):
                stat = file.stat()
            name = file.relative_to(self.folder).as_posix()
            digest.update(f"{name}\n{stat.st_size}\n{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


def find_images(folder: Path, *patterns: str) -> list[Path]:
    """The images in a folder that match one of the patterns, such as `*/*`, sorted."""
    return sorted(
        file
        for pattern in patterns
        for file in folder.glob(pattern)
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def find_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted."""
    return sorted(
        place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")
    )


def merge_parts(
    parts: Mapping[str, Mapping[str, Sequence[ImageReader]]], folder: Path
) -> dict[str, Sequence[ImageReader]]:
    """All classes of a data set that is stored in several parts, sorted.

    Raises:
        UserError: if a class is empty, or in two parts.
    """
    part_of: dict[str, str] = {}
    for part, classes in parts.items():
        for name, images in classes.items():
            if name in part_of:
                raise UserError(
                    f"class {name} is in both {part_of[name]} and {part} of {folder}; remove it "
                    "from one of them"
                )
            if not images:
                raise UserError(
                    f"class {name} in {part} of {folder} is empty; add its images, or remove it"
                )
            part_of[name] = part
    return {name: parts[part_of[name]][name] for name in sorted(part_of)}
