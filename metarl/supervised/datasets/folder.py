"""Custom images: class folders (`FOLDER/CLASS/*.png` or .jpg), or a data set of (image, label).

Images are resized to squares, and classes are split at random.
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
from metarl.supervised.datasets.decoding import decode, read_image, resize
from metarl.supervised.datasets.source import SPLITS, Contents, ImageReader, Source

SUFFIXES = (".jpg", ".jpeg", ".png")
MODES = {1: "L", 3: "RGB"}


class LabelledImages(Protocol):
    """A sequence of (image, label), such as torchvision's data sets."""

    def __len__(self) -> int:
        """The number of elements."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """An image (PIL, or an array or tensor in 0...255 or 0...1) and its class."""


def find(folder: Path, size: int, channels: int) -> Source:
    """The class folders in a folder.

    Args:
        folder: contains a folder for each class.
        size: the side of the square images, in pixels.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UserError: if the folder does not exist, or has no classes.
    """
    if not folder.is_dir():
        raise UserError(
            f"data.path: there is no folder {folder}; set the parent of the class folders"
        )
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
            f"data.path: {folder} has no class folders; put the images of each class into one "
            "folder"
        )
    for name, files in classes.items():
        if not files:
            raise UserError(
                f"class {name} in {folder} has no images ({', '.join(SUFFIXES)}); add some, "
                "or remove the folder"
            )
    files = [image for images in classes.values() for image in images]
    read = partial(_read, classes, size, channels)
    return Source(f"folder-{size}-{channels}", "class folders", folder, files, read)


def _read(classes: Mapping[str, Sequence[Path]], size: int, channels: int) -> Contents:
    images: dict[str, Sequence[ImageReader]] = {
        name: [partial(_from_file, file, size, channels) for file in files]
        for name, files in classes.items()
    }
    return Contents((size, size, channels), images)


def _from_file(file: Path, size: int, channels: int) -> NDArray[np.uint8]:
    return _to_pixels(decode(read_image(file), str(file)), size, channels)


def _to_pixels(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    pixels = np.asarray(resize(image.convert(MODES[channels]), size), dtype=np.uint8)
    return pixels.reshape(size, size, channels)


def load_labelled(
    dataset: LabelledImages, size: int, channels: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...], str]:
    """Load a data set of (image, label) into memory, grouped by class.

    Args:
        dataset: its images are PIL images, or arrays (H, W), (H, W, C) or (C, H, W).
        size: the side of the square images, in pixels.
        channels: 1 for grey, 3 for RGB.

    Returns:
        Images (I, H, W, C), the start of each class (number of classes + 1,), the names of the
        classes, and the checksum.

    Raises:
        UserError: if an element is not a valid (image, label).
    """
    try:
        number = len(dataset)
    except TypeError as error:
        raise UserError(
            f"the data set must have a length and an (image, label) at every index: {error}"
        ) from error
    by_class: dict[Any, list[NDArray[np.uint8]]] = {}
    for index in range(number):
        try:
            image, label = dataset[index]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"element {index} of the data set must be a pair (image, label): {error}"
            ) from error
        # labels may be tensors or numpy scalars
        label = label.item() if hasattr(label, "item") else label
        if not isinstance(label, int | str):
            raise UserError(
                f"the label of element {index} must be an integer or a string, not {label!r}"
            )
        by_class.setdefault(label, []).append(_to_pixels(_to_pil(image, index), size, channels))
    if not by_class:
        raise UserError("the data set is empty")
    label_types = {type(label) for label in by_class}
    if len(label_types) > 1:
        raise UserError("labels must be all integers, or all strings")
    labels = sorted(cast(Iterable[Any], by_class))
    # names sort like their labels: integers are padded with zeros
    digits = len(str(max(map(abs, labels)))) if label_types == {int} else 0
    names = tuple(f"{label:0{digits}d}" if digits else label for label in labels)
    starts = np.cumsum([0, *(len(by_class[label]) for label in labels)]).astype(np.int64)
    images = np.stack([image for label in labels for image in by_class[label]])
    return images, starts, names, checksum(images, starts, names)


def _to_pil(image: Any, index: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels = np.asarray(image)
    # channels first, unless the last axis can be the channels as well
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]  # a grey image for PIL
    if pixels.dtype.kind == "f" and pixels.size and 0.0 <= pixels.min() <= pixels.max() <= 1.0:
        pixels = np.rint(255.0 * pixels).astype(np.uint8)
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2:
        raise UserError(
            f"the image of element {index} must be a PIL image or an array (H, W), (H, W, C) or "
            "(C, H, W), of uint8 or of floats in 0...1 (before any normalisation), not "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    return Image.fromarray(pixels)


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
