"""Where tasks come from: sinusoids, or the classes of Omniglot or MiniImagenet."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from rich.console import Console

from metarl.errors import UserError
from metarl.progress import Progress
from metarl.settings import Natural, Section
from metarl.supervised.config import DATA_VARIABLE
from metarl.supervised.datasets.images import ImageSet, load_images
from metarl.supervised.episodes import ImageTasks
from metarl.supervised.losses import CLASSIFICATION, Kind


class Omniglot(Section):
    """Characters of Omniglot: how many to tell apart. The seed draws training, validation, test.

    A character rotated by a multiple of 90° is one of its own (Santoro et al. 2016).
    """

    name: Literal["omniglot"] = "omniglot"
    ways: Annotated[int, Field(ge=2)] = 5
    split_seed: Natural = 0

    kind: ClassVar[Kind] = CLASSIFICATION
    rotated: ClassVar[bool] = True

    @property
    def examples_per_shot(self) -> int:
        """One image of each class."""
        return self.ways

    def title(self, shots: int) -> str:
        """Such as `omniglot, 5-way 1-shot`."""
        return f"{self.name}, {self.ways}-way {shots}-shot"

    @cached_property
    def images(self) -> ImageSet:
        """All images, from the folder that `--data` or the environment names.

        Raises:
            UserError: if it names none, or the images are not there or damaged.
        """
        folder = os.environ.get(DATA_VARIABLE)
        if not folder:
            raise UserError(
                f"{self.name} is needed: say which folder it is in by --data FOLDER or the "
                f"environment variable {DATA_VARIABLE}"
            )
        # seen only when the images are converted, once
        with Progress(Console(stderr=True), transient=True) as progress:
            return load_images(self.name, Path(folder), self.split_seed, progress)

    @property
    def hashes(self) -> dict[str, str]:
        """Checksums of the images and of their split."""
        return {"data_sha256": self.images.checksum, "split_sha256": self.images.split_hash}

    def tasks(
        self, split: str, task_conditioned: bool = False, ways: int | None = None
    ) -> ImageTasks:
        """Episodes of a split's classes; images don't tell what is asked of them."""
        return ImageTasks(self.images, split, ways or self.ways, self.rotated)


class MiniImagenet(Omniglot):
    """Classes of MiniImagenet: how many to tell apart. Its split is published."""

    name: Literal["miniimagenet"] = "miniimagenet"  # type: ignore[assignment]

    rotated: ClassVar[bool] = False
