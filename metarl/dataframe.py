"""Conversion to pandas, which is an optional dependency."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from metarl.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame


def to_dataframe(rows: Iterable[Mapping[str, Any]]) -> "DataFrame":
    """A pandas DataFrame with one row for each mapping and one column for each key.

    Raises:
        UserError: if pandas is not installed.
    """
    try:
        import pandas  # imported here because it is optional
    except ImportError as error:
        raise UserError("to_frame() requires pandas: pip install pandas") from error
    return pandas.DataFrame.from_records(list(rows))
