"""Data sections of images: Omniglot, MiniImagenet, class folders, and data sets in Python."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, field_validator
from rich.console import Console

from metarl.config.files import DATA_VARIABLE
from metarl.config.registry import Registry, make
from metarl.config.sections import Arguments, Fraction, ImportString, NonNegativeInt, Section
from metarl.errors import UserError
from metarl.progress import Progress
from metarl.supervised.datasets import folder
from metarl.supervised.datasets.cache import ImageSet, Splits, load_converted
from metarl.supervised.datasets.folder import LabelledImages
from metarl.supervised.datasets.images import load_images
from metarl.supervised.episodes import ImageTasks
from metarl.supervised.losses import CLASSIFICATION, TaskType

CHECKED = 1000  # images whose range is checked; more would be read from the disk


class ImageData(Section):
    """Classification of images with `ways` classes a task; `split_seed` selects the split."""

    name: str
    ways: Annotated[int, Field(ge=2)] = 5
    split_seed: NonNegativeInt = 0

    kind: ClassVar[TaskType] = CLASSIFICATION
    rotated: ClassVar[bool] = False

    @property
    def title_name(self) -> str:
        return self.name

    def title(self, shots: int, ways: int | None = None) -> str:
        return f"{self.title_name}, {ways or self.ways}-way {shots}-shot"

    @cached_property
    def images(self) -> ImageSet:
        """All images.

        Raises:
            UserError: if they are missing or damaged.
        """
        raise NotImplementedError

    @property
    def hashes(self) -> dict[str, str]:
        return {"data_sha256": self.images.checksum, "split_sha256": self.images.split_hash}

    def tasks(
        self, split: str, task_conditioned: bool = False, ways: int | None = None
    ) -> ImageTasks:
        # images cannot be conditioned on the task
        # the setting that `ways` is from: methods train on more classes than they are evaluated on
        setting = "data" if ways is None else "method" if split == "train" else "evaluation"
        return ImageTasks(self.images, split, ways or self.ways, self.rotated, f"{setting}.ways")


class Omniglot(ImageData):
    """Omniglot. `split_seed` selects the characters of training, validation and test.

    A character rotated by a multiple of 90° is another character (Santoro et al. 2016).
    """

    name: Literal["omniglot"] = "omniglot"

    rotated: ClassVar[bool] = True

    @cached_property
    def images(self) -> ImageSet:
        data_folder = os.environ.get(DATA_VARIABLE)
        if not data_folder:
            raise UserError(
                f"{self.name} not found; set its folder with --data FOLDER or the environment "
                f"variable {DATA_VARIABLE}"
            )
        # the bar is visible only while images are converted, at the first use
        with Progress(Console(stderr=True), transient=True) as progress:
            return load_images(self.name, Path(data_folder), self.split_seed, progress)


class MiniImagenet(Omniglot):
    """MiniImagenet, in its published split."""

    name: Literal["miniimagenet"] = "miniimagenet"  # type: ignore[assignment]
    split_seed: Literal[0] = 0  # the split is published

    rotated: ClassVar[bool] = False


class CustomImages(ImageData):
    """Custom images: class folders and data sets.

    Images are resized to squares of `size` pixels, with 1 (grey) or 3 (RGB) `channels`. `shares`
    are the fractions of the classes for training, validation and test, unless the data define the
    split.
    """

    size: Annotated[int, Field(ge=4, le=1024)] = 84
    channels: Literal[1, 3] = 3
    shares: tuple[Fraction, Fraction, Fraction] = (0.64, 0.16, 0.2)

    @field_validator("shares")
    @classmethod
    def _sum_to_one(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(f"must sum to 1, not {sum(shares):g}")
        return shares

    def _split(self, classes: Sequence[str]) -> Splits:
        return folder.split(classes, self.split_seed, self.shares)

    def _checked(self, images: ImageSet) -> ImageSet:
        """The images, unless a setting or their values contradict them."""
        for name in ("shares", "split_seed"):
            if getattr(self, name) != CustomImages.model_fields[name].default and any(
                not np.array_equal(numbers, images.splits[split])
                for split, numbers in self._split(images.classes).items()
            ):
                raise UserError(f"data.{name}: the data define their own split; leave it out")
        if images.images[:CHECKED].max() == 1:
            raise UserError(
                f"no pixel of {self.title_name} is above 1 of 255; for black and white images, "
                "multiply by 255"
            )
        return images


class Folder(CustomImages):
    """A folder of class folders: `path/CLASS/*.png`, or .jpg.

    With `path/train`, `path/val` and `path/test` that have class folders, the split is theirs.
    """

    name: Literal["folder"] = "folder"
    path: Path

    @property
    def title_name(self) -> str:
        return self.path.name

    @cached_property
    def images(self) -> ImageSet:
        source = folder.find(self.path, self.size, self.channels)
        with Progress(Console(stderr=True), transient=True) as progress:
            return self._checked(load_converted(source, self._split, progress))


class Dataset(CustomImages):
    """A data set whose items are (image, label), such as those of torchvision.

    In a config, `dataset` is its class, `module:Class`, and `settings` are the arguments of its
    constructor. In Python, `Dataset.of(dataset, ways=5)` uses an existing object. A run that was
    trained on an object does not contain it: to load or evaluate the run, pass it again, as in
    `metarl.load_network(run, data=Dataset.of(dataset, ways=5))`.

    Classes are split into training, validation and test classes at random, with `split_seed` and in
    the proportions `shares`. Images are resized to squares of `size` pixels, with 1 (grey) or 3
    (RGB) `channels`. A task has `ways` classes.
    """

    name: Literal["dataset"] = "dataset"
    dataset: ImportString
    settings: Arguments = Field(default_factory=dict)

    @classmethod
    def of(cls, dataset: LabelledImages | Mapping[str, LabelledImages], **settings: Any) -> Self:
        """Use a data set object, or {"train": …, "validation": …, "test": …} as a fixed split.

        Args:
            dataset: a sequence of (image, label): a PIL image, or an array or tensor of bytes or of
                floats in 0...1; an integer or a string. The labels of the three splits must differ.
            settings: the other settings of this class, such as `ways`.
        """
        section = cls(dataset=FROM_PYTHON, **settings)
        section.__dict__["loaded"] = dataset  # the cached property; sections are frozen
        return section

    @property
    def title_name(self) -> str:
        loaded = self.loaded
        return type(loaded.get("train") if isinstance(loaded, Mapping) else loaded).__name__

    @cached_property
    def loaded(self) -> LabelledImages | Mapping[str, LabelledImages]:
        """The data set object.

        Raises:
            UserError: if it cannot be constructed, or was passed from Python and is missing.
        """
        if self.dataset == FROM_PYTHON:
            raise UserError(
                "this run was trained on a data set object from Python; pass it again: "
                "metarl.load_network(run, data=Dataset.of(dataset, ...)), or metarl.evaluate(run, "
                "data=...)"
            )
        factory = DATASETS.load(self.dataset, ("__len__", "__getitem__"))
        loaded: LabelledImages = make(DATASETS.kind, self.dataset, factory, self.settings)
        return loaded

    @cached_property
    def images(self) -> ImageSet:
        load = folder.load_labelled
        return self._checked(load(self.loaded, self.size, self.channels, self._split))


FROM_PYTHON = "given"  # recorded in place of the import string of an object
DATASETS = Registry("data set of images", {})
