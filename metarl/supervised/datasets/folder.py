"""Custom images: class folders (`FOLDER/CLASS/*.png` or .jpg), or a data set of (image, label).

Images are resized to squares. Classes are split at random, or as the folders or data sets are: a
folder may have `train`, `val` and `test` with class folders in each.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.rng import make_rng
from metarl.supervised.datasets.cache import ImageSet, Splits, checksum
from metarl.supervised.datasets.pixels import read_pixels, to_pixels
from metarl.supervised.datasets.source import (
    SPLITS,
    SUFFIXES,
    Contents,
    ImageReader,
    Source,
    find_folders,
    find_images,
    merge_parts,
)

# the names that published splits have
SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
OTHER_SUFFIXES = (".bmp", ".gif", ".tif", ".tiff", ".webp")
READ_TWICE = 8  # elements of a data set, to find random augmentation


class LabelledImages(Protocol):
    """A sequence of (image, label), such as torchvision's data sets."""

    def __len__(self) -> int:
        """The number of elements."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """An image (PIL, or an array or tensor in 0...255 or 0...1) and its class."""


def find(folder: Path, size: int, channels: int) -> Source:
    """The class folders in a folder.

    Args:
        folder: contains a folder for each class, or `train`, `val` and `test` with such folders.
        size: the side of the square images, in pixels.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UserError: if the folder does not exist, has no classes, or has a part of a split only.
    """
    if not folder.is_dir():
        raise UserError(
            f"data.path: there is no folder {folder}; set the parent of the class folders"
        )
    folders = find_folders(folder)
    # a folder with images of its own is a class, whatever its name
    parts = {
        SPLIT_FOLDERS[place.name.lower()]: place
        for place in folders
        if place.name.lower() in SPLIT_FOLDERS
        and find_folders(place)
        and not find_images(place, "*")
    }
    if parts and (set(parts) != set(SPLITS) or len(folders) != len(SPLITS)):
        names = ", ".join(place.name for place in folders)
        raise UserError(
            f"data.path: {folder} has the folders {names}; a split consists of train, val and "
            "test, with class folders in each; without one, put all class folders into one folder"
        )
    classes = {
        split: {place.name: _class_images(place) for place in find_folders(part)}
        for split, part in (parts or {"": folder}).items()
    }
    if not all(classes.values()):
        raise UserError(
            f"data.path: {folder} has no class folders; put the images of each class into one "
            "folder"
        )
    files = [image for part in classes.values() for images in part.values() for image in images]
    read = partial(_read, folder, classes, size, channels)
    return Source(f"folder-{size}-{channels}", "class folders", folder, files, read)


def _class_images(place: Path) -> list[Path]:
    files = find_images(place, "*")
    unsupported = [
        file for file in sorted(place.iterdir()) if file.suffix.lower() in OTHER_SUFFIXES
    ]
    if unsupported:
        raise UserError(f"{unsupported[0]} is not a PNG or JPEG; convert or remove such images")
    if not files:
        raise UserError(
            f"class {place.name} in {place.parent} has no images ({', '.join(SUFFIXES)}); add "
            "some, or remove the folder"
        )
    return files


def _read(
    folder: Path, classes: Mapping[str, Mapping[str, Sequence[Path]]], size: int, channels: int
) -> Contents:
    readers: dict[str, dict[str, Sequence[ImageReader]]] = {
        part: {
            name: [partial(read_pixels, file, size, channels) for file in files]
            for name, files in members.items()
        }
        for part, members in classes.items()
    }
    splits = None if "" in classes else {part: sorted(members) for part, members in classes.items()}
    return Contents((size, size, channels), merge_parts(readers, folder), splits)


def load_labelled(
    dataset: LabelledImages | Mapping[str, LabelledImages],
    size: int,
    channels: int,
    split: Callable[[Sequence[str]], Splits],
) -> ImageSet:
    """Load a data set of (image, label) into memory, grouped by class.

    Args:
        dataset: its images are PIL images, or arrays (H, W), (H, W, C) or (C, H, W). A mapping from
            `train`, `validation` and `test` to data sets defines the split.
        size, channels: as for `find`.
        split: splits the names of the classes otherwise.

    Raises:
        UserError: if an element is not a valid (image, label), or is random.
    """
    parts: Any = {"": dataset}
    if isinstance(dataset, Mapping) and any(isinstance(key, str) for key in dataset):
        if set(dataset) != set(SPLITS):
            raise UserError(
                f"a data set for each split needs the keys {', '.join(SPLITS)}, not "
                f"{', '.join(map(str, dataset))}"
            )
        parts = dataset
    by_class: dict[Any, list[NDArray[np.uint8]]] = {}
    part_of: dict[Any, str] = {}
    for part, members in parts.items():
        of = f"the data set {part}".strip()
        for label, pixels in _elements(members, size, channels, of):
            if part_of.setdefault(label, part) != part:
                raise UserError(
                    f"class {label} is in both {part_of[label]} and {part}: the classes of a split "
                    "are disjoint; give different classes different labels"
                )
            by_class.setdefault(label, []).append(pixels)
    label_types = {type(label) for label in by_class}
    if len(label_types) > 1:
        raise UserError("labels must be all integers, or all strings")
    labels = sorted(cast(Iterable[Any], by_class))
    # names sort like their labels: integers are padded with zeros
    digits = len(str(max(map(abs, labels)))) if label_types == {int} else 0
    name_of = {label: f"{label:0{digits}d}" if digits else label for label in labels}
    names = tuple(name_of.values())
    starts = np.cumsum([0, *(len(by_class[label]) for label in labels)]).astype(np.int64)
    images = np.stack([image for label in labels for image in by_class[label]])
    splits = {
        part: np.array([i for i, label in enumerate(labels) if part_of[label] == part], np.int64)
        for part in parts
        if part
    }
    return ImageSet(images, starts, names, splits or split(names), checksum(images, starts, names))


def _elements(
    dataset: LabelledImages, size: int, channels: int, of: str
) -> Iterator[tuple[int | str, NDArray[np.uint8]]]:
    """The label and the pixels of each element."""
    try:
        number = len(dataset)
    except Exception as error:  # code of the user may raise anything
        raise UserError(
            f"{of} must have a length and an (image, label) at every index: {error}"
        ) from error
    if not number:
        raise UserError(f"{of} is empty")
    for index in range(number):
        element = f"element {index} of {of}"
        label, pixels = _element(dataset, index, size, channels, element)
        # the checksum of a run's data must be the same whenever they are read
        if index < READ_TWICE and not np.array_equal(
            pixels, _element(dataset, index, size, channels, element)[1]
        ):
            raise UserError(
                f"{element} differs when it is read again; remove random augmentation, since a run "
                "records the checksum of its images"
            )
        yield label, pixels


def _element(
    dataset: LabelledImages, index: int, size: int, channels: int, element: str
) -> tuple[int | str, NDArray[np.uint8]]:
    try:
        pair: Any = dataset[index]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            shape = f"{type(pair).__name__}{_parts(pair)}"
            raise UserError(
                f"{element} must be a pair (image, label), not a {shape}; wrap the data set in a "
                "class that returns pairs"
            )
        image, label = pair
        return _label(label, element), to_pixels(image, size, channels, f"the image of {element}")
    except UserError:
        raise
    except Exception as error:  # code of the user may raise anything
        raise UserError(
            f"{element} cannot be read: it raised {type(error).__name__} ({error}); repair it, or "
            "leave it out"
        ) from error


def _parts(pair: Any) -> str:
    if isinstance(pair, Mapping):
        return f" with the keys {', '.join(map(str, pair))}"
    return f" of length {len(pair)}" if hasattr(pair, "__len__") else ""


def _label(label: Any, element: str) -> int | str:
    # labels may be tensors or numpy scalars
    if isinstance(label, torch.Tensor | np.ndarray | np.generic):
        if np.prod(label.shape) != 1:
            raise UserError(
                f"the label of {element} has shape {tuple(label.shape)}; a label is one integer or "
                "string, so convert one-hot vectors with argmax"
            )
        label = label.item()
    if isinstance(label, int):  # also booleans
        return int(label)
    if not isinstance(label, str):
        raise UserError(f"the label of {element} must be an integer or a string, not {label!r}")
    return label


def split(
    classes: Sequence[str], seed: int, shares: tuple[float, float, float]
) -> dict[str, NDArray[np.int64]]:
    """A random split: the class numbers of each part, sorted. Each part has at least one class.

    Args:
        classes: the names of all classes.
        seed: of the split.
        shares: fractions of train, validation and test, whose sum is 1.

    Raises:
        UserError: if there are fewer than three classes.
    """
    if len(classes) < len(SPLITS):
        raise UserError(
            f"there are {len(classes)} classes, but training, validation and test need one each"
        )
    order = make_rng(seed, "split of classes").permutation(len(classes)).astype(np.int64)
    count = len(classes)
    # rounded shares, moved so that each part has at least one class
    first = min(max(1, round(shares[0] * count)), count - 2)
    second = min(max(first + 1, round((shares[0] + shares[1]) * count)), count - 1)
    parts = np.split(order, [first, second])
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}
