"""Decoding of image files from untrusted sources."""

import io

from PIL import Image, UnidentifiedImageError

from metarl.errors import UserError

# an explicit list, since some formats of Pillow run other programs, such as Ghostscript for EPS
FORMATS = ("PNG", "JPEG")
MAX_BYTES = 2**26  # of an image file
MAX_PIXELS = 2**26  # 200 MB in memory; the largest photograph of ImageNet has fewer


def decode(content: bytes, name: str) -> Image.Image:
    """Decode an image completely.

    Args:
        content: a PNG or a JPEG file. The suffix of its name does not matter.
        name: the name of the file, for error messages.

    Raises:
        UserError: if it is corrupt, in another format, or too large.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"the image {name} has {image.width}x{image.height} pixels, more than "
                f"{MAX_PIXELS:,}; make it smaller, or restore it from the original data"
            )
        image.load()  # `open` reads the header only, so that the size is known before decoding
    except UnidentifiedImageError as error:
        raise UserError(
            f"the image {name} is corrupt or not a {' or '.join(FORMATS)}; restore it from the "
            "original data"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a corrupt file may raise anything
        raise UserError(
            f"the image {name} is corrupt ({_first_line(error)}); restore it from the original data"
        ) from error
    return image


def resize(image: Image.Image, side: int) -> Image.Image:
    """The image as a square of `side` pixels; unchanged if it has this size."""
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _first_line(error: Exception) -> str:
    return str(error).split(" <", 1)[0] or type(error).__name__
