"""Rows of numbers as a pandas frame, where pandas is there: nothing else here needs it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from metarl.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Iterable[Mapping[str, Any]]) -> "DataFrame":
    """A frame with a column for each name.

    Raises:
        UserError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError("to_frame() makes a frame of pandas: pip install pandas") from error
    return pandas.DataFrame.from_records(list(rows))
