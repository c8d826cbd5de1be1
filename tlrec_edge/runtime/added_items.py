"""Items added at run time, and their rows behind those of the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import CANDIDATE_TEXT
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.types import Floats, Indices, Ints, Scales

NEIGHBOURS = 20
"""Number of candidates with the most similar texts whose mean score a new item gets."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AddedItems:
    """A set of n added items, never changed: adding more makes a new one.

    An item's score is its bias plus the mean of its neighbours' scores, weighted by
    ``neighbour_weights``. If all weights are 0, its own row is scored instead. Rows and scales are
    stored as in the bundle.
    """

    rows: Mapping[str, int]
    """Row of each id."""
    names: tuple[str, ...]
    history_rows: NDArray[Any]
    history_scale: Scales
    candidate_rows: NDArray[Any]
    candidate_scale: Scales
    bias: Floats
    neighbours: Ints
    """Positions of the candidates with the nearest texts, (n, k)."""
    neighbour_weights: Floats
    """Their weights, which add up to 1 or are all 0, (n, k)."""

    @classmethod
    def none(cls, bundle: Bundle) -> AddedItems:
        """Return the empty set."""
        array = bundle.array
        k = min(NEIGHBOURS, bundle.shape.candidates) if bundle.has(CANDIDATE_TEXT) else 0
        return cls(
            rows={},
            names=(),
            history_rows=array("history_rows")[:0],
            history_scale=array("history_scale")[:0],
            candidate_rows=array("candidate_rows")[:0],
            candidate_scale=array("candidate_scale")[:0],
            bias=np.zeros(0, np.float32),
            neighbours=np.zeros((0, k), np.int32),
            neighbour_weights=np.zeros((0, k), np.float32),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        arrays = (value for value in vars(self).values() if isinstance(value, np.ndarray))
        return sum(array.nbytes for array in arrays)


class ConcatenatedRows:
    """The rows of a mapped array followed by rows in memory."""

    def __init__(self, base: NDArray[Any], extra: NDArray[Any]) -> None:
        self.base, self.extra = base, extra

    def __len__(self) -> int:
        return len(self.base) + len(self.extra)

    def take(self, rows: Indices | RowRanges, dtype: Any = None) -> NDArray[Any]:
        """Return some rows, in ``dtype`` if it is given.

        ``RowRanges`` are ranges of the mapped array.
        """
        if isinstance(rows, RowRanges):
            return rows.take_from(self.base, dtype)
        if not len(self.extra):
            taken: NDArray[Any] = self.base.take(rows, axis=0)
            return taken if dtype is None else taken.astype(dtype)
        first = len(self.base)
        new = np.flatnonzero(rows >= first)
        taken = self.base.take(np.minimum(rows, first - 1), axis=0)
        taken[new] = self.extra.take(rows[new] - first, axis=0)
        return taken if dtype is None else taken.astype(dtype)

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first row, rows) in order; no block holds rows of both arrays."""
        for first, part in ((0, self.base), (len(self.base), self.extra)):
            for start in range(0, len(part), size):
                yield first + start, part[start : start + size]
