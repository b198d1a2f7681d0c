"""Safe unpickling of arrays of numbers and plain containers from untrusted files.

A pickle can call any importable function with any arguments. Here the names that arrays need refer
to functions of this module, and all other names are rejected. Numpy's own functions are not called:
they do not validate their arguments, so that a single wrong byte can crash the process. Numbers,
strings, lists, tuples, sets and dictionaries need no names.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import read_file

MAX_BYTES = 2**32  # MiniImagenet's training images have less than 2**30

BUILD = pickle.BUILD[0]


def unpickle(path: Path) -> Any:
    """Load a pickle of Python 2 or 3.

    Raises:
        UserError: if it contains anything but arrays and containers, is corrupt, or cannot be read.
    """
    content = read_file(path, MAX_BYTES)
    try:
        # strings of Python 2 are bytes, and Latin-1 maps every byte to a character
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _Forbidden as error:
        raise UserError(
            f"the pickle {path} contains {error} and was not read, because anything but arrays of "
            "numbers and plain containers may run any code; get the data from a trusted source, or "
            "as image files"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"the pickle {path} does not fit into memory, or is corrupt; use a machine with more "
            "memory, or restore it from the original data"
        ) from error
    except Exception as error:  # a corrupt file may raise anything
        raise UserError(
            f"the pickle {path} is corrupt ({type(error).__name__}: {error}); restore it from the "
            "original data"
        ) from error


class _Forbidden(Exception):
    """A pickle contains an object that is not allowed."""


class _Unpickler(pickle._Unpickler):
    """Based on the Python implementation: the C one allocates gigabytes for a large memo index."""

    stack: list[Any]

    def _build(self) -> None:
        # BUILD could otherwise set attributes of any object on the stack, such as a function
        if not isinstance(self.stack[-2], _DType | _Array):
            raise _Forbidden(f"a state for {type(self.stack[-2]).__name__}")
        pickle._Unpickler.dispatch[BUILD](self)  # type: ignore[arg-type]

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, BUILD: _build}

    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 renamed its package core to _core; files contain either name
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in ALLOWED:
            raise _Forbidden(f"{module}.{name}")
        return ALLOWED[full]


class _DType:
    """A dtype, which a pickle constructs from a code and then a byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"b1|[iuf][1248]", code):
            raise _Forbidden(f"an array of the type {code}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *_ = state
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array whose shape is checked against its contents."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype_of_pickle, fortran, content = state
        dtype, data = _dtype(dtype_of_pickle), _bytes(content)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} with {len(data):,} bytes")
        checked = 1, shape, dtype, bool(fortran), data
        super().__setstate__(checked)  # type: ignore[arg-type] # numpy pickles a Python bool


def _empty(*_: Any) -> _Array:
    return _Array((0,), np.uint8)  # the pickle sets its state next


def _scalar(dtype: _DType, content: bytes | str) -> Any:
    (number,) = np.frombuffer(_bytes(content), _dtype(dtype))
    return number


def _from_buffer(content: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return np.frombuffer(content, _dtype(dtype)).reshape(shape, order="F" if order == "F" else "C")


def _dtype(dtype: _DType) -> np.dtype[Any]:
    if not isinstance(dtype, _DType):  # a pickle may pass any argument
        raise TypeError("an array without a type")
    return dtype.dtype


def _bytes(content: bytes | str) -> bytes:
    return content if isinstance(content, bytes) else _latin1(content)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """The encoding of bytes by Python 3 in a pickle for Python 2."""
    if encoding != "latin1":
        raise _Forbidden(f"text in the encoding {encoding}")
    return text.encode("latin1")


ALLOWED = {
    "numpy.core.multiarray._reconstruct": _empty,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": None,  # an argument only, never called
    "numpy.dtype": _DType,
    "_codecs.encode": _latin1,
    "collections.OrderedDict": OrderedDict,
}
