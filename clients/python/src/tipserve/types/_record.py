"""What all answers can do: compare, become dicts and tables, and show themselves."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tipserve.errors import TipserveError

if TYPE_CHECKING:
    import pandas as pd


class Record:
    """A plain value of a server's answer.

    Two are equal if all that they hold is, arrays and errors included.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in _fields(self))

    def __hash__(self) -> int:
        return hash((type(self), *(_hash(getattr(self, name)) for name in _fields(self))))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as what JSON can hold: arrays as lists, times in ISO 8601."""
        return {name: plain(getattr(self, name)) for name in _fields(self)}


def _fields(record: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]


def same(a: Any, b: Any) -> bool:
    """Whether two values are, by what they hold."""
    if a is b:
        return True
    if hasattr(a, "shape") and hasattr(b, "shape"):
        import numpy

        return bool(numpy.array_equal(a, b, equal_nan=True))
    if isinstance(a, TipserveError) and isinstance(b, TipserveError):
        return type(a) is type(b) and all(
            getattr(a, name) == getattr(b, name)
            for name in ("code", "message", "reason", "metadata", "violations", "retry_delay")
        )
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def _hash(value: Any) -> int:
    """Equal for equal values; arrays, dicts and errors do not count."""
    try:
        return 0 if isinstance(value, float | TipserveError) else hash(value)
    except TypeError:
        return 0


def plain(value: Any) -> Any:
    """A value as what JSON can hold."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, TipserveError):
        return {
            "code": value.code.name,
            "reason": value.reason,
            "message": value.message,
            "metadata": dict(value.metadata),
        }
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A data frame; ImportError says how to install pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("this needs pandas: pip install 'tipserve[pandas]'") from error
    return pandas.DataFrame(list(rows), columns=list(columns))
