"""Image files as pixels."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from metarl.errors import UserError
from metarl.io import read_file

# of the many formats that Pillow knows, some run other programs: Ghostscript for EPS
FORMATS = ("PNG", "JPEG")
MOST_BYTES = 2**26  # of an image file
MOST_PIXELS = 2**26  # 200 MB once decoded; the largest photograph of ImageNet has less

# what nonsense in an image file raises
DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(content: bytes, name: str) -> Image.Image:
    """An image, decoded completely.

    Args:
        content: of the file, a PNG or a JPEG, whatever its name says.
        name: of the file, for the error.

    Raises:
        UserError: if it is damaged, in another format, or so large that it could exhaust memory.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise UserError(
                f"the image {name} has {image.width}x{image.height} pixels, more than "
                f"{MOST_PIXELS:,}; make it smaller, or restore it from the original data"
            )
        image.load()
    except UnidentifiedImageError as error:
        raise UserError(
            f"the image {name} is damaged, or is no {' or '.join(FORMATS)}; restore it from the "
            "original data"
        ) from error
    except DAMAGED as error:
        raise UserError(
            f"the image {name} is damaged ({_first_line(error)}); restore it from the original data"
        ) from error
    return image


def read_image(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        UserError: if it cannot be read, or is larger than any image.
    """
    return read_file(path, MOST_BYTES)


def resized(image: Image.Image, side: int) -> Image.Image:
    """The image as a square of `side` pixels; one that has this size already stays as it is."""
    return (
        image
        if image.size == (side, side)
        else image.resize((side, side), Image.Resampling.LANCZOS)
    )


def _first_line(error: Exception) -> str:
    return str(error).split(" <", 1)[0] or type(error).__name__
