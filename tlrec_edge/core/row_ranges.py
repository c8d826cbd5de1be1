"""Several ranges of a table's rows, read as one block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Floats, Indices


class RowRanges:
    """The rows ``starts[i]`` up to, but not including, ``stops[i]`` of a table.

    ``starts`` (n,) and ``stops`` (n,) are in ascending order, and the ranges don't overlap. The
    *block* is the rows of all ranges, one range after the other.
    """

    def __init__(self, starts: Indices, stops: Indices) -> None:
        self._starts, self._stops = starts, stops
        self._block_stops = (stops - starts).cumsum()
        self._shift = stops - self._block_stops
        """Row in the table minus row in the block, which is the same for all rows of a range."""
        self._slices = [
            slice(start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        """Return the number of rows in the block."""
        return int(self._block_stops[-1])

    def take_from(self, table: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
        """Return the block's rows of a table, converted to ``dtype`` if given."""
        return np.concatenate([table[row_range] for row_range in self._slices], dtype=dtype)

    def to_rows(self, at: Indices) -> Indices:
        """Return the rows of the table at positions of the block, (m,), both in ascending order."""
        rows: Indices = at + self._shift.take(self._block_stops.searchsorted(at, "right"))
        return rows

    def dense(self, rows: Indices, values: Floats) -> Floats:
        """Return the block's part of a vector: ``values`` at ascending ``rows``, 0 elsewhere."""
        out = np.zeros(len(self), np.float32)
        # The only range that a row can be in is the first one that stops after it.
        row_range = self._stops.searchsorted(rows, "right")
        inside = (row_range < len(self._stops)).nonzero()[0]
        inside = inside[self._starts.take(row_range.take(inside)) <= rows.take(inside)]
        positions = rows.take(inside) - self._shift.take(row_range.take(inside))
        out[positions] = values.take(inside)
        return out
