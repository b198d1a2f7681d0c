"""Images of classes to be learned from few examples: Omniglot and MiniImagenet.

images = load_images("omniglot", Path("data"))
images.images[images.starts[c]:images.starts[c + 1]]    all images of class c
images.splits["train"]                                  the numbers of the training classes
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.progress import Progress
from metarl.supervised.datasets import miniimagenet, omniglot
from metarl.supervised.datasets.cache import converted
from metarl.supervised.datasets.source import Source

Name = Literal["omniglot", "miniimagenet"]

SMALL = 2**27  # bytes whose checksum takes less than a tenth of a second


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images grouped by class.

    Attributes:
        name: "omniglot" or "miniimagenet".
        images: (I, H, W, C) in 0 ... 255, memory-mapped, the images of a class one after the other.
        starts: (number of classes + 1,): class c has images `starts[c]:starts[c + 1]`.
        classes: their names, sorted.
        splits: class numbers of "train", "validation" and "test", sorted; they share none.
        checksum: sha256 of images, starts and names.
    """

    name: str
    images: NDArray[np.uint8]
    starts: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]
    checksum: str

    @property
    def split_hash(self) -> str:
        """Tells two splits apart by the names of their classes: sha256."""
        names = {
            split: [self.classes[number] for number in sorted(numbers)]
            for split, numbers in self.splits.items()
        }
        return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()


def find_source(name: Name, folder: Path) -> Source | None:
    """A data set in a folder, or in the places in it where it usually is; None if it is not there.

    Raises:
        UserError: if only a part of it is there.
    """
    return FINDERS[name](folder)


def load_images(
    name: Name,
    folder: Path,
    split_seed: int = 0,
    progress: Progress | None = None,
    verify: bool = False,
) -> ImageSet:
    """A data set, converted when it is asked for the first time, and memory-mapped ever after.

    Args:
        name: which one.
        folder: where the user keeps data: `--data` or `METARL_DATA`.
        split_seed: draws the split of Omniglot; that of MiniImagenet is published with it.
        progress: shows how far the conversion is.
        verify: compare the checksum of a large set too, which takes seconds.

    Raises:
        UserError: if it is not there, not whole or damaged.
    """
    source = find_source(name, folder)
    if source is None:
        raise UserError(MISSING[name].format(folder=folder))
    stored = converted(source, progress)
    if verify or stored.images.nbytes < SMALL:
        stored.verify()
    if stored.splits is None:
        splits = omniglot.split(stored.classes, split_seed)
    else:
        number = {class_name: index for index, class_name in enumerate(stored.classes)}
        splits = {
            split: np.array([number[class_name] for class_name in names], np.int64)
            for split, names in stored.splits.items()
        }
    return ImageSet(name, stored.images, stored.starts, stored.classes, splits, stored.checksum)


FINDERS: Mapping[Name, Callable[[Path], Source | None]] = {
    "omniglot": omniglot.find,
    "miniimagenet": miniimagenet.find,
}
MISSING: Mapping[Name, str] = {
    "omniglot": omniglot.MISSING,
    "miniimagenet": miniimagenet.MISSING,
}
