"""Pickles from strangers, of which only arrays of numbers and plain containers are accepted.

To unpickle is to call whatever the file names, with whatever arguments it likes. Here the names
that an array needs stand for functions of this module. Numpy's own are not called: they trust a
pickle so much that one wrong byte can crash the process. Numbers, texts, lists, tuples, sets and
dictionaries need no name at all.
"""

import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import read_file

MOST_BYTES = 2**32  # MiniImagenet's training images have less than 2**30

BUILD = pickle.BUILD[0]

# what nonsense in a pickle raises
DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
    pickle.UnpicklingError,
)


def unpickle(path: Path) -> Any:
    """What a pickle of Python 2 or 3 holds.

    Raises:
        UserError: if it names anything else than arrays, is damaged, or cannot be read.
    """
    content = read_file(path, MOST_BYTES)
    try:
        # Python 2 did not tell bytes from text, and every byte is a character of Latin-1
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _Forbidden as error:
        raise UserError(
            f"the pickle {path} holds {error} and was not read, because anything but arrays of "
            "numbers and plain containers may run any code; get the data from someone whom you "
            "trust, or as image files"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"the pickle {path} does not fit into this machine's memory, or is damaged; read it on "
            "another machine, or restore it from the original data"
        ) from error
    except DAMAGED as error:
        raise UserError(
            f"the pickle {path} is damaged ({type(error).__name__}: {error}); restore it from the "
            "original data"
        ) from error


class _Forbidden(Exception):
    """A pickle holds something that it may not."""


class _Unpickler(pickle._Unpickler):
    """Python's own in Python: the one in C sets aside gigabytes for the number of a memo."""

    stack: list[Any]

    def _build(self) -> None:
        # a state can be given to whatever is on the stack, the functions of this module included
        if not isinstance(self.stack[-2], _Kind | _Array):
            raise _Forbidden(f"a state for {type(self.stack[-2]).__name__}")
        pickle._Unpickler.dispatch[BUILD](self)  # type: ignore[arg-type]

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, BUILD: _build}

    def find_class(self, module: str, name: str) -> Any:
        # numpy calls its inner package _core since version 2; files have it by either name
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in KNOWN:
            raise _Forbidden(f"{module}.{name}")
        return KNOWN[full]


class _Kind:
    """The type of an array's elements, which a pickle gives in two pieces."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"b1|[iuf][1248]", code):
            raise _Forbidden(f"an array of the type {code}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *_ = state
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array that is as large as what it is filled with."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        dtype, pixels = _dtype(kind), _bytes(content)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(pixels):
            raise ValueError(f"an array of shape {shape} with {len(pixels):,} bytes")
        checked = 1, shape, dtype, bool(fortran), pixels
        super().__setstate__(checked)  # type: ignore[arg-type] # numpy itself writes Python's bool


def _empty(*_: Any) -> _Array:
    return _Array((0,), np.uint8)  # the pickle goes on to set its state


def _scalar(kind: _Kind, content: bytes | str) -> Any:
    (number,) = np.frombuffer(_bytes(content), _dtype(kind))
    return number


def _from_buffer(content: bytes, kind: _Kind, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return np.frombuffer(content, _dtype(kind)).reshape(shape, order="F" if order == "F" else "C")


def _dtype(kind: _Kind) -> np.dtype[Any]:
    if not isinstance(kind, _Kind):  # a pickle passes whatever it likes
        raise TypeError("an array without a type")
    return kind.dtype


def _bytes(content: bytes | str) -> bytes:
    return content if isinstance(content, bytes) else _latin1(content)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """As Python 3 writes bytes in a pickle that Python 2 can read."""
    if encoding != "latin1":
        raise _Forbidden(f"text in the encoding {encoding}")
    return text.encode("latin1")


KNOWN = {
    "numpy.core.multiarray._reconstruct": _empty,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": None,  # named as an argument alone
    "numpy.dtype": _Kind,
    "_codecs.encode": _latin1,
    "collections.OrderedDict": OrderedDict,
}
