"""Loading of Omniglot and MiniImagenet."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from metarl.errors import UserError
from metarl.progress import Progress
from metarl.supervised.datasets import miniimagenet, omniglot
from metarl.supervised.datasets.cache import ImageSet, load_converted
from metarl.supervised.datasets.source import Source

Name = Literal["omniglot", "miniimagenet"]


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
    # the split of MiniImagenet is part of the converted data
    return load_converted(source, partial(omniglot.split, seed=split_seed), progress, verify)


FINDERS: Mapping[Name, Callable[[Path], Source | None]] = {
    "omniglot": omniglot.find,
    "miniimagenet": miniimagenet.find,
}
MISSING: Mapping[Name, str] = {
    "omniglot": omniglot.MISSING,
    "miniimagenet": miniimagenet.MISSING,
}
