"""Images of one's own: class folders, or a data set of (image, label); the split is drawn by class.

folder/CLASS/*.png      or .jpg; every class is a folder, every image is resized to a square
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metarl.errors import UserError
from metarl.rng import make_rng
from metarl.supervised.datasets.cache import checksum
from metarl.supervised.datasets.decoding import decode, read_image, resized
from metarl.supervised.datasets.source import SPLITS, Contents, Picture, Source

SUFFIXES = (".jpg", ".jpeg", ".png")
MODES = {1: "L", 3: "RGB"}


class LabelledImages(Protocol):
    """What torchvision's data sets are: a sequence of (image, label)."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """An image (of PIL, or an array or tensor in 0...255 or 0...1) and its class."""


def find(folder: Path, size: int, channels: int) -> Source:
    """Class folders.

    Args:
        folder: that has a folder for each class.
        size: side of the square that images become.
        channels: 1 for grey, 3 for colours.

    Raises:
        UserError: if there is no such folder, or no class in it.
    """
    if not folder.is_dir():
        raise UserError(f"data.path: there is no folder {folder}; name the one with class folders")
    classes = {
        place.name: [
            file
            for file in sorted(place.iterdir())
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        ]
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
    }
    if not classes:
        raise UserError(
            f"data.path: {folder} has no class folders; put the images of each class into a folder "
            "of its own there"
        )
    for name, files in classes.items():
        if not files:
            raise UserError(
                f"class {name} in {folder} has no images ({', '.join(SUFFIXES)}); put them there, "
                "or remove it"
            )
    files = [file for each in classes.values() for file in each]
    read = partial(_read, classes, size, channels)
    return Source(f"folder-{size}-{channels}", "class folders", folder, files, read)


def _read(classes: Mapping[str, Sequence[Path]], size: int, channels: int) -> Contents:
    pictures: dict[str, Sequence[Picture]] = {
        name: [partial(_from_file, file, size, channels) for file in files]
        for name, files in classes.items()
    }
    return Contents((size, size, channels), pictures)


def _from_file(file: Path, size: int, channels: int) -> NDArray[np.uint8]:
    return _squared(decode(read_image(file), str(file)), size, channels)


def _squared(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    pixels = np.asarray(resized(image.convert(MODES[channels]), size), dtype=np.uint8)
    return pixels.reshape(size, size, channels)


def collected(
    dataset: LabelledImages, size: int, channels: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...], str]:
    """A data set of (image, label) in memory, grouped by class.

    Args:
        dataset: whose `__getitem__` gives images (H, W), (H, W, C) or (C, H, W), or of PIL.
        size: side of the square that they become.
        channels: 1 for grey, 3 for colours.

    Returns:
        Images (I, H, W, C), where each class starts, (number of classes + 1,), the names of the
        classes, and the checksum of all of it.

    Raises:
        UserError: if it is no such data set, or an image cannot be used.
    """
    try:
        number = len(dataset)
    except TypeError as error:
        raise UserError(
            f"the data set must have a length, and (image, label) at every index: {error}"
        ) from error
    by_class: dict[Any, list[NDArray[np.uint8]]] = {}
    for index in range(number):
        try:
            image, label = dataset[index]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"element {index} of the data set must be a pair (image, label): {error}"
            ) from error
        label = label.item() if hasattr(label, "item") else label
        if not isinstance(label, int | str):
            raise UserError(
                f"the label of element {index} must be a whole number or a name, not {label!r}"
            )
        by_class.setdefault(label, []).append(_squared(_image(image, index), size, channels))
    if not by_class:
        raise UserError("the data set is empty")
    kinds = {type(label) for label in by_class}
    if len(kinds) > 1:
        raise UserError("labels must be all numbers, or all names")
    labels = sorted(cast(Iterable[Any], by_class))
    digits = len(str(max(map(abs, labels)))) if kinds == {int} else 0
    names = tuple(f"{label:0{digits}d}" if digits else label for label in labels)
    starts = np.cumsum([0, *(len(by_class[label]) for label in labels)]).astype(np.int64)
    images = np.stack([image for label in labels for image in by_class[label]])
    return images, starts, names, checksum(images, starts, names)


def _image(image: Any, index: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)  # torch's order
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype.kind == "f" and pixels.size and 0.0 <= pixels.min() <= pixels.max() <= 1.0:
        pixels = np.rint(255.0 * pixels).astype(np.uint8)
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2:
        raise UserError(
            f"the image of element {index} must be one of PIL, or an array (H, W), (H, W, C) or "
            "(C, H, W) of bytes, or of numbers in 0...1 (before any normalisation), not "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    return Image.fromarray(pixels)


def split(
    classes: Sequence[str], seed: int, shares: tuple[float, float, float]
) -> dict[str, NDArray[np.int64]]:
    """Class numbers of each split, drawn by the seed, sorted; each has one class at least.

    Args:
        classes: names of all.
        seed: of the draw.
        shares: of train, validation and test; in sum one.

    Raises:
        UserError: if there are fewer than three classes.
    """
    if len(classes) < len(SPLITS):
        raise UserError(
            f"there are {len(classes)} classes, and training, validation and test need one each"
        )
    order = make_rng(seed, "split of classes").permutation(len(classes)).astype(np.int64)
    count = len(classes)
    first = min(max(1, round(shares[0] * count)), count - 2)
    second = min(max(first + 1, round((shares[0] + shares[1]) * count)), count - 1)
    parts = np.split(order, [first, second])
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}
