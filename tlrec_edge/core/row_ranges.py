"""Stretches of a table, read as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Floats, Indices


class RowRanges:
    """The rows starts[i]..stops[i]-1 of a table, for rising ``starts`` (n,) and ``stops`` (n,) that do not overlap."""

    def __init__(self, starts: Indices, stops: Indices) -> None:
        self._starts, self._stops = starts, stops
        self._ends = (stops - starts).cumsum()
        self._slices = [
            slice(start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        """Return how many rows they hold."""
        return int(self._ends[-1])

    def take_from(self, table: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
        """Return their rows of a table, one after the other, in a ``dtype`` that holds them."""
        return np.concatenate([table[row_range] for row_range in self._slices], dtype=dtype)

    def to_rows(self, at: Indices) -> Indices:
        """Return which rows of the table stand at rising places of what ``take_from`` returns."""
        shift = self._stops - self._ends
        rows: Indices = at + shift.take(self._ends.searchsorted(at, "right"))
        return rows

    def dense(self, rows: Indices, values: Floats) -> Floats:
        """Return the values of rising ``rows``, and 0 for all others, as ``take_from`` would of a whole table."""
        out = np.zeros(len(self), np.float32)
        row_range = self._stops.searchsorted(rows, "right")
        inside = (row_range < len(self._stops)).nonzero()[0]
        inside = inside[self._starts.take(row_range.take(inside)) <= rows.take(inside)]
        out[rows.take(inside) - (self._stops - self._ends).take(row_range.take(inside))] = (
            values.take(inside)
        )
        return out
