"""Loading of Omniglot and MiniImagenet."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from metarl.errors import UserError
from metarl.progress import Progress
from metarl.supervised.datasets import miniimagenet, omniglot
from metarl.supervised.datasets.cache import ImageSet, load_converted

Name = Literal["omniglot", "miniimagenet"]
# by name, the module with `find`, which looks into a folder, and the message if it is MISSING
DATA_SETS: Mapping[Name, Any] = {"omniglot": omniglot, "miniimagenet": miniimagenet}


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
        progress, verify: as for `load_converted`.

    Raises:
        UserError: if it is missing, incomplete or corrupt.
    """
    source = DATA_SETS[name].find(folder)
    if source is None:
        raise UserError(DATA_SETS[name].MISSING.format(folder=folder))
    # the split of MiniImagenet is part of the converted data
    return load_converted(source, partial(omniglot.split, seed=split_seed), progress, verify)
