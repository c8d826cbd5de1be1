"""Sums of sparse rows: what a user's history adds to single candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.rowwise import Scales

Ints = NDArray[np.int32]
Places = NDArray[np.intp]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


_NONE = np.zeros(0, np.intp)


class SparseSum:
    """A sum over candidates, kept as its entries (m,) until it is read: ``weights`` at ``columns``, in any order.

    Entries of one column are added up in float64 in the order they stand, however the sum is read.
    """

    def __init__(self, columns: NDArray[Any], weights: Doubles) -> None:
        self.columns, self.weights = columns, weights
        self._summed: tuple[NDArray[np.intp], Floats] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.columns, self.weights, *(self._summed or ())))

    @property
    def summed(self) -> tuple[NDArray[np.intp], Floats]:
        """The columns, rising and each once, and their sums; kept once read.

        Two threads may both add them up. ``cached_property`` would not let them, but in Python 3.11 it has one lock for
        all sums there are, at which threads queue, and a child of a fork made meanwhile waits for ever.
        """
        if self._summed is None:
            self._summed = self._sum()
        return self._summed

    @property
    def raised(self) -> NDArray[np.intp]:
        """The columns whose sum is above 0, rising."""
        if not len(self):
            return _NONE
        columns, sums = self.summed
        return columns[sums > 0]

    def _sum(self) -> tuple[NDArray[np.intp], Floats]:
        # One sort of the column and the entry's place together: stable, and twice as fast as a stable sort.
        keys = self.columns.astype(np.int64) << 32
        keys |= np.arange(len(keys))
        keys.sort()
        columns = keys >> 32
        first = np.empty(len(keys), bool)
        first[:1] = True
        np.not_equal(columns[1:], columns[:-1], out=first[1:])
        weights = self.weights.take(keys & 0xFFFFFFFF)
        return columns[first], np.bincount(first.cumsum() - 1, weights).astype(np.float32)

    def at(self, positions: NDArray[np.integer[Any]], marks: Ints) -> Floats:
        """Return the sums at ``positions`` (n,). ``marks`` (C,) is the caller's alone, all -1, and so it is left."""
        n = len(positions)
        marks[positions] = np.arange(n, dtype=np.int32)
        try:
            place = marks.take(self.columns)
            hit = (place >= 0).nonzero()[0]
            sums = np.bincount(place.take(hit), self.weights.take(hit), n)
            return sums.take(marks.take(positions)).astype(np.float32)  # a position that is asked twice has one mark
        finally:
            marks[positions] = -1


NOTHING = SparseSum(np.zeros(0, np.int32), np.zeros(0, np.float64))


def gather(
    indptr: NDArray[np.int64], columns: NDArray[Any], values: NDArray[Any], scale: Scales | None, rows: Places
) -> tuple[NDArray[Any], Doubles]:
    """Return columns and values of the entries of sparse ``rows``, row by row.

    ``scale`` (n,) of the rows of int8 values; None for float32 ones.
    """
    starts = indptr.take(rows)
    lengths = indptr.take(rows + 1)
    lengths -= starts
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    if total > len(columns):
        raise ValueError("sparse rows longer than their table")  # before a damaged table asks for all memory
    starts += lengths
    starts -= ends
    at = starts.repeat(lengths)
    at += np.arange(total)
    weights = values.take(at).astype(np.float64)
    if scale is not None:
        weights *= scale.take(rows).repeat(lengths)
    return columns.take(at), weights
