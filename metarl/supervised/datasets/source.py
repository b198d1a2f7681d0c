"""A data set in the form in which somebody has it, before it is converted."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError

SPLITS = ("train", "validation", "test")

Picture = Callable[[], NDArray[np.uint8]]  # decodes one image, (H, W, C)


@dataclass(frozen=True)
class Contents:
    """What a data set holds; no image is decoded yet.

    Attributes:
        shape: height, width and channels of every image.
        classes: the images of each class; sorted, and so are the images.
        splits: the classes of each split, where the data fixes them.
    """

    shape: tuple[int, int, int]
    classes: Mapping[str, Sequence[Picture]]
    splits: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class Source:
    """Where a data set is. To find one is cheap; to read it is not.

    Attributes:
        name: of the data set.
        form: in which form it is there, in words.
        folder: where it was found.
        files: all that it is read from.
        read: lists what it holds; raises UserError where that is damaged or not whole.
    """

    name: str
    form: str
    folder: Path
    files: Sequence[Path]
    read: Callable[[], Contents]

    def fingerprint(self) -> str:
        """Changes whenever a file is added, removed or written to; 16 hexadecimal digits.

        Raises:
            UserError: if a file cannot be looked at, such as a link that leads nowhere.
        """
        digest = hashlib.sha256(self.name.encode())
        for file in sorted(self.files):
            try:
                stat = file.stat()
            except OSError as error:
                raise UserError(
                    f"cannot look at {file} ({error.strerror}); restore or remove it"
                ) from error
            name = file.relative_to(self.folder).as_posix()
            digest.update(f"{name}\n{stat.st_size}\n{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


def joined(
    parts: Mapping[str, Mapping[str, Sequence[Picture]]], folder: Path
) -> dict[str, Sequence[Picture]]:
    """The classes of all parts of a data set, sorted.

    Raises:
        UserError: if a class is empty, or in two parts.
    """
    where: dict[str, str] = {}
    for part, classes in parts.items():
        for name, pictures in classes.items():
            if name in where:
                raise UserError(
                    f"class {name} is in both {where[name]} and {part} of {folder}; leave it in "
                    "one of them alone"
                )
            if not pictures:
                raise UserError(
                    f"class {name} in {part} of {folder} is empty; put its images there, or remove "
                    "it"
                )
            where[name] = part
    return {name: parts[where[name]][name] for name in sorted(where)}
