"""Where tasks come from: sinusoids, Omniglot, MiniImagenet, or images and tasks of one's own."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator
from rich.console import Console

from metarl.config.registry import Registry, make
from metarl.config.sections import Fraction, ImportString, NonNegativeInt, Section
from metarl.errors import UserError
from metarl.progress import Progress
from metarl.supervised.config import DATA_VARIABLE
from metarl.supervised.datasets import folder
from metarl.supervised.datasets.cache import converted
from metarl.supervised.datasets.folder import LabelledImages
from metarl.supervised.datasets.images import ImageSet, load_images
from metarl.supervised.episodes import ImageTasks
from metarl.supervised.losses import CLASSIFICATION, TaskType


class ImageData(Section):
    """Classes of images: how many to tell apart, and the seed that draws which are for what."""

    name: str
    ways: Annotated[int, Field(ge=2)] = 5
    split_seed: NonNegativeInt = 0

    kind: ClassVar[TaskType] = CLASSIFICATION
    rotated: ClassVar[bool] = False

    @property
    def called(self) -> str:
        """What the data are called, such as `omniglot`."""
        return self.name

    def title(self, shots: int, ways: int | None = None) -> str:
        """Such as `omniglot, 5-way 1-shot`."""
        return f"{self.called}, {ways or self.ways}-way {shots}-shot"

    @cached_property
    def images(self) -> ImageSet:
        """All images.

        Raises:
            UserError: if they are not there or damaged.
        """
        raise NotImplementedError

    @property
    def hashes(self) -> dict[str, str]:
        """Checksums of the images and of their split."""
        return {"data_sha256": self.images.checksum, "split_sha256": self.images.split_hash}

    def tasks(
        self, split: str, task_conditioned: bool = False, ways: int | None = None
    ) -> ImageTasks:
        """Episodes of a split's classes; images don't tell what is asked of them."""
        return ImageTasks(self.images, split, ways or self.ways, self.rotated)


class Omniglot(ImageData):
    """Characters of Omniglot: how many to tell apart. The seed draws training, validation, test.

    A character rotated by a multiple of 90° is one of its own (Santoro et al. 2016).
    """

    name: Literal["omniglot"] = "omniglot"

    rotated: ClassVar[bool] = True

    @cached_property
    def images(self) -> ImageSet:
        """All images, from the folder that `--data` or the environment names.

        Raises:
            UserError: if it names none, or the images are not there or damaged.
        """
        place = os.environ.get(DATA_VARIABLE)
        if not place:
            raise UserError(
                f"{self.name} is needed: say which folder it is in by --data FOLDER or the "
                f"environment variable {DATA_VARIABLE}"
            )
        # seen only when the images are converted, once
        with Progress(Console(stderr=True), transient=True) as progress:
            return load_images(self.name, Path(place), self.split_seed, progress)


class MiniImagenet(Omniglot):
    """Classes of MiniImagenet: how many to tell apart. Its split is published."""

    name: Literal["miniimagenet"] = "miniimagenet"  # type: ignore[assignment]

    rotated: ClassVar[bool] = False


class CustomImages(ImageData):
    """What class folders and data sets of one's own have in common.

    `size` is the side of the square that every image becomes, `channels` 1 for grey or 3 for
    colours, `shares` how the classes are divided into training, validation and test, by the seed.
    """

    size: Annotated[int, Field(ge=4, le=1024)] = 84
    channels: Literal[1, 3] = 3
    shares: tuple[Fraction, Fraction, Fraction] = (0.64, 0.16, 0.2)

    @field_validator("shares")
    @classmethod
    def _whole(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(f"must be 1 in sum, not {sum(shares):g}")
        return shares


class Folder(CustomImages):
    """Class folders of one's own: `path/CLASS/*.png`, or .jpg."""

    name: Literal["folder"] = "folder"
    path: Path

    @property
    def called(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def images(self) -> ImageSet:
        """All images, converted once.

        Raises:
            UserError: if there are none, or they are damaged.
        """
        source = folder.find(self.path, self.size, self.channels)
        with Progress(Console(stderr=True), transient=True) as progress:
            stored = converted(source, progress)
        splits = folder.split(stored.classes, self.split_seed, self.shares)
        return ImageSet(
            self.name, stored.images, stored.starts, stored.classes, splits, stored.checksum
        )


class Dataset(CustomImages):
    """A data set of (image, label), such as torchvision's: `dataset` names its class.

    From Python, `Dataset.of(dataset, ways=5)` takes one that exists; what was trained on it is
    loaded with it again (`metarl.load_network(run, data=…)`).
    """

    name: Literal["dataset"] = "dataset"
    dataset: ImportString
    settings: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, dataset: LabelledImages, **settings: Any) -> Self:
        """The section of a data set that exists; `settings` are the section's, such as `ways`."""
        section = cls(dataset=GIVEN, **settings)
        section.__dict__["loaded"] = dataset
        return section

    @property
    def called(self) -> str:
        """Its class, such as `FashionMNIST`."""
        return type(self.loaded).__name__

    @cached_property
    def loaded(self) -> LabelledImages:
        """The data set itself.

        Raises:
            UserError: if it cannot be made, or was given and is not here.
        """
        if self.dataset == GIVEN:
            raise UserError(
                "this was trained on a data set that was given in Python; give it again: "
                "metarl.load_network(run, data=Dataset.of(dataset, ...))"
            )
        factory = DATASETS.load(self.dataset, ("__len__", "__getitem__"))
        loaded: LabelledImages = make(DATASETS.kind, self.dataset, factory, self.settings)
        return loaded

    @cached_property
    def images(self) -> ImageSet:
        """All images, in memory.

        Raises:
            UserError: if they are not such as they must be.
        """
        images, starts, names, digest = folder.collected(self.loaded, self.size, self.channels)
        splits = folder.split(names, self.split_seed, self.shares)
        return ImageSet(self.name, images, starts, names, splits, digest)


GIVEN = "given"
DATASETS = Registry("data set of images", {})
