"""Pixels of images in the forms that users have: files, PIL images, arrays and tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from metarl.errors import UserError
from metarl.io import read_file
from metarl.supervised.datasets.decoding import MAX_BYTES, decode, resize

MODES = {1: "L", 3: "RGB"}
MAX_ASPECT = 8  # of an array; longer ones are series more often than images


def to_array(values: Any) -> NDArray[Any]:
    """The real numbers of an array, nested lists, or a tensor of any device and type.

    Raises:
        ValueError: if they are anything else.
    """
    try:
        if isinstance(values, list | tuple) and any(isinstance(v, torch.Tensor) for v in values):
            values = torch.stack([torch.as_tensor(value) for value in values])
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            if values.is_floating_point() and values.itemsize < 4:
                values = values.float()  # numpy has no bfloat16
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"they have the type {array.dtype}")
    return array


def read_pixels(file: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """The pixels of an image file; see `to_pixels`."""
    image = decode(read_file(file, MAX_BYTES), str(file))
    return to_pixels(image, size, channels, f"the image {file}")


def to_pixels(image: Any, size: int, channels: int, name: str) -> NDArray[np.uint8]:
    """The pixels of an image, resized to a square, (size, size, channels).

    Args:
        image: a PIL image; or an array or tensor (H, W), (H, W, C) or (C, H, W), of bytes, of
            booleans, or of floats in 0...1.
        size: the side of the square, in pixels.
        channels: 1 for grey, 3 for RGB.
        name: of the image in error messages.

    Raises:
        UserError: if its values cannot be converted without a guess about their meaning.
    """
    if not isinstance(image, Image.Image) or image.mode == "F":
        image = _from_array(image, name)
    try:
        if image.has_transparency_data and (
            image.mode.startswith("I") or image.convert("RGBA").getextrema()[3][0] < 255
        ):
            # hidden colours of transparent pixels would appear, and a background would be a guess
            raise UserError(
                f"{name} has transparent pixels; draw it on a background of your choice, and save "
                "it without transparency"
            )
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            # 65535 / 255 = 257; `convert` would clip all values above 255
            image = Image.fromarray(np.rint(np.asarray(image) / 257.0).astype(np.uint8))
        elif image.mode == "I":
            raise UserError(
                f"{name} has integers of 32 bits, whose range is unknown (Pillow mode I); convert "
                "it to 8 or 16 bits"
            )
        image = image.convert(MODES[channels])
    except ValueError as error:
        raise UserError(
            f"{name} has the Pillow mode {image.mode}; convert it to {MODES[channels]}"
        ) from error
    return np.asarray(resize(image, size), dtype=np.uint8).reshape(size, size, channels)


def _from_array(image: Any, name: str) -> Image.Image:
    expected = (
        "a PIL image or an array (H, W), (H, W, C) or (C, H, W), of uint8 or of floats in 0...1 "
        "(before any normalisation)"
    )
    try:
        pixels = to_array(image)
    except ValueError as error:
        raise UserError(f"{name} must be {expected}: {error}") from error
    form = f"{pixels.dtype} of shape {pixels.shape}"
    # channels first, unless the last axis can be the channels as well
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]  # a grey image for PIL
    floats = pixels.dtype.kind in "bf" and pixels.size
    if floats and pixels.min() >= 0.0 and pixels.max() <= 1.0:
        pixels = np.rint(255.0 * pixels).astype(np.uint8)
    shape = pixels.shape
    if (
        pixels.dtype != np.uint8
        or shape[2:] not in ((), (3,))
        or pixels.ndim < 2
        or not pixels.size
    ):
        raise UserError(f"{name} must be {expected}, not {form}")
    if max(shape[:2]) > MAX_ASPECT * min(shape[:2]):
        raise UserError(
            f"{name} is {shape[0]}x{shape[1]}, which a square would distort beyond recognition; "
            "for series or features, write a class of custom tasks (docs/own_data.md)"
        )
    return Image.fromarray(pixels)
