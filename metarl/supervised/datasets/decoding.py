"""Image files as pixels."""

import io
from pathlib import Path

from PIL import Image

from metarl.errors import UserError


def decode(content: bytes, name: str) -> Image.Image:
    """An image, decoded completely.

    Args:
        content: of the file, in any format that Pillow knows.
        name: of the file, for the error.

    Raises:
        UserError: if it is damaged.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"the image {name} is damaged ({_first_line(error)}); restore it from the original data"
        ) from error
    return image


def read_file(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UserError: if it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}); restore it, or let yourself read it"
        ) from error


def resized(image: Image.Image, side: int) -> Image.Image:
    """The image as a square of `side` pixels; one that has this size already stays as it is."""
    return (
        image
        if image.size == (side, side)
        else image.resize((side, side), Image.Resampling.LANCZOS)
    )


def _first_line(error: Exception) -> str:
    return str(error).split(" <", 1)[0] or type(error).__name__
