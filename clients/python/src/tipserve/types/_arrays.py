"""Vectors and matrices, with numpy or without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tipserve.errors import TipserveError


def vector(values: Sequence[float]) -> Any:
    """A float32 array where numpy is installed, else a tuple of floats."""
    try:
        import numpy
    except ImportError:
        return tuple(values)
    return numpy.asarray(values, dtype=numpy.float32)


def matrix(rows: Mapping[int, Sequence[float] | TipserveError], width: int) -> Any:
    """A float32 array of [rows, width] where numpy is installed, else a list of tuples.

    Rows that failed are NaN.
    """
    nothing = (math.nan,) * width
    ordered = [rows[i] for i in sorted(rows)]
    values = [nothing if isinstance(row, TipserveError) else row for row in ordered]
    try:
        import numpy
    except ImportError:
        return [tuple(row) for row in values]
    made = numpy.empty((len(values), width), dtype=numpy.float32)
    for i, row in enumerate(values):
        made[i] = row
    return made
