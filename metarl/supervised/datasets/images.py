"""Loading of Omniglot and MiniImagenet.

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
from metarl.supervised.datasets.cache import load_converted
from metarl.supervised.datasets.source import Source

Name = Literal["omniglot", "miniimagenet"]

ALWAYS_VERIFIED = 2**27  # bytes; their checksum takes less than 0.1 s


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images grouped by class.

    Attributes:
        name: the name of the data set, such as "omniglot".
        images: (I, H, W, C) in 0...255, memory-mapped and grouped by class.
        starts: (number of classes + 1,): class c has images `starts[c]:starts[c + 1]`.
        classes: the names of the classes, sorted.
        splits: disjoint class numbers of "train", "validation" and "test", sorted.
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
        """Sha256 of the names of the classes in each split."""
        names = {
            split: [self.classes[number] for number in sorted(numbers)]
            for split, numbers in self.splits.items()
        }
        return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()


def find_source(name: Name, folder: Path) -> Source | None:
    """A data set in a folder or one of its usual subfolders; None if there is none.

    Raises:
        UserError: if it is incomplete.
    """
    return FINDERS[name](folder)


def load_images(
    name: Name,
    folder: Path,
    split_seed: int = 0,
    progress: Progress | None = None,
    verify: bool = False,
) -> ImageSet:
    """Load a data set, which is converted at the first use and then memory-mapped.

    Args:
        name: the data set.
        folder: the folder with the data, as in `--data` or `METARL_DATA`.
        split_seed: of the split of Omniglot; the split of MiniImagenet is published.
        progress: shows the progress of the conversion.
        verify: whether to verify the checksum of large data sets, which takes seconds.

    Raises:
        UserError: if it is missing, incomplete or corrupt.
    """
    source = find_source(name, folder)
    if source is None:
        raise UserError(MISSING[name].format(folder=folder))
    stored = load_converted(source, progress)
    if verify or stored.images.nbytes < ALWAYS_VERIFIED:
        stored.verify()
    # the split of Omniglot is random, and not part of the converted data
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
