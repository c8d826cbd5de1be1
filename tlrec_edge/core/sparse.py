"""Sums of sparse rows: what the items of a history contribute to the scores of the candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Doubles, Floats, Indices, Scales

_EMPTY = np.zeros(0, np.intp)
_ARANGE = np.arange(4096)
_SUMMED_BYTES = np.dtype(np.int64).itemsize + np.dtype(np.float32).itemsize
"""Bytes of a distinct column and its sum."""
# numpy assigns a 0-dimensional array to many entries in half the time that a Python bool takes.
_TRUE, _FALSE = np.array(True), np.array(False)


class Workspace:
    """Per-thread scratch buffers for reading sums over ``n`` candidates."""

    def __init__(self, n: int) -> None:
        self.requested = np.zeros(n, bool)
        """Mask of the candidates to sum; all False between calls."""
        self.slot = np.empty(n, np.int32)
        """Index of each requested candidate in the answer; other entries are undefined."""


class SparseSum:
    """A sum of sparse rows, stored as its unsorted entries (m,) until it is read.

    ``weights[i]`` is an entry in column ``columns[i]``; a column may occur several times. Both
    ``summed`` and ``at`` add the entries of a column in float64 and in this order, so a candidate
    gets the same bits alone and in any batch.
    """

    def __init__(self, columns: NDArray[Any], weights: Doubles | Weights) -> None:
        self.columns, self.weights = columns, weights
        self._summed: tuple[Indices, Floats] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def __reduce__(self) -> tuple[type[SparseSum], tuple[NDArray[Any], Doubles]]:
        """Pickle the weights themselves instead of the table they are read from."""
        return SparseSum, (self.columns, self.weights.take(np.arange(len(self))))

    @property
    def nbytes(self) -> int:
        """Size in bytes of the entries, and of the sums once they are computed."""
        return sum(array.nbytes for array in (self.columns, self.weights, *(self._summed or ())))

    @property
    def max_nbytes(self) -> int:
        """Size in bytes once the sums are computed, if no column occurs twice."""
        return self.columns.nbytes + self.weights.nbytes + len(self) * _SUMMED_BYTES

    @property
    def summed(self) -> tuple[Indices, Floats]:
        """The distinct columns in ascending order and their sums, computed on first use.

        Two threads may both compute them. ``cached_property`` would prevent that, but in Python
        3.11 it has a single lock for all instances: threads queue for it, and a process forked
        while it is held waits forever.
        """
        if self._summed is None:
            self._summed = self._sum()
        return self._summed

    @property
    def positive_columns(self) -> Indices:
        """The columns whose sum is above 0, in ascending order."""
        if not len(self):
            return _EMPTY
        columns, sums = self.summed
        return columns[sums > 0]

    def _sum(self) -> tuple[Indices, Floats]:
        # Sort by column, and by entry within a column. Packing both into one integer makes the
        # order unique, so numpy's plain sort does, which is twice as fast as its stable one.
        keys = self.columns.astype(np.int64) << 32
        keys |= np.arange(len(keys))
        keys.sort()
        columns = keys >> 32
        first = np.empty(len(keys), bool)
        first[:1] = True
        np.not_equal(columns[1:], columns[:-1], out=first[1:])
        weights = self.weights.take(keys & 0xFFFFFFFF)
        return columns[first], np.bincount(first.cumsum() - 1, weights).astype(np.float32)

    def at(self, positions: NDArray[np.integer[Any]], workspace: Workspace) -> Floats:
        """Return the sums at ``positions`` (n,), which may repeat.

        No other thread may use ``workspace`` meanwhile.
        """
        n, requested, slot = len(positions), workspace.requested, workspace.slot
        requested[positions] = _TRUE
        try:
            hit = requested.take(self.columns).nonzero()[0]
        finally:
            requested[positions] = _FALSE
        if not len(hit):
            return np.zeros(n, np.float32)
        # bincount adds in the order of the entries, as `_sum` does. A position that occurs twice
        # has one slot, the last one written, and both read their sum from it.
        slot[positions] = np.arange(n, dtype=np.int32)
        sums = np.bincount(slot.take(self.columns.take(hit)), self.weights.take(hit), n)
        return sums.take(slot.take(positions)).astype(np.float32)


EMPTY_SUM = SparseSum(np.zeros(0, np.int32), np.zeros(0, np.float64))


class SparseTable:
    """A CSR matrix whose rows are summed: a row per item, a column per candidate.

    ``scale`` (n,) is the scale of each row if the values are int8, and None if they are float32.
    Every entry is multiplied by ``weight``. ``diagonal`` is added to entry (i, i) of each of the
    first ``candidates`` rows.
    """

    def __init__(
        self,
        indptr: NDArray[np.int64],
        columns: NDArray[Any],
        values: NDArray[Any],
        scale: Scales | None,
        candidates: int,
        weight: float = 1.0,
        diagonal: float = 0.0,
    ) -> None:
        self._starts, self._stops, self._columns = indptr[:-1], indptr[1:], columns
        self.values, self.scale, self.weight, self.diagonal = values, scale, weight, diagonal
        self._candidates = candidates

    def __bool__(self) -> bool:
        return bool(len(self._columns) or self.diagonal)

    def sum(self, rows: Indices) -> SparseSum:
        """Return the sum of ``rows`` (n,), which may repeat; entries are added in their order."""
        stops = self._stops.take(rows)
        lengths = stops - self._starts.take(rows)
        ends = np.add.accumulate(lengths)
        total = int(ends[-1]) if len(ends) else 0
        if total > len(self._columns):
            # The offsets are damaged: the lines below would allocate all memory.
            raise ValueError("sparse rows longer than their table")
        # Position in the table minus position in the sum, which is the same for a row's entries.
        stops -= ends
        at = stops.repeat(lengths)
        at += _ARANGE[:total] if total <= len(_ARANGE) else np.arange(total)
        columns = self._columns.take(at)
        if self.diagonal:
            columns = np.concatenate([columns, rows[rows < self._candidates]])
        return SparseSum(columns, Weights(self, at, rows, lengths))


class Weights:
    """The weights of a sum's entries. They are read from the table on demand: most never are.

    ``at`` (m,) holds the positions of the first m entries in the table; any later entries are on
    the diagonal.
    """

    def __init__(self, table: SparseTable, at: Indices, rows: Indices, lengths: Indices) -> None:
        self._table, self._at, self._rows, self._lengths = table, at, rows, lengths

    @property
    def nbytes(self) -> int:
        """Size in bytes, without the table."""
        return self._at.nbytes + self._rows.nbytes + self._lengths.nbytes

    def take(self, entries: Indices) -> Doubles:
        """Return the weights of some entries of the sum."""
        if not self._table.diagonal:
            return self._read(entries)
        weights = np.full(len(entries), self._table.diagonal)
        stored = entries < len(self._at)
        weights[stored] = self._read(entries[stored])
        return weights

    def _read(self, entries: Indices) -> Doubles:
        table = self._table
        weights = table.values.take(self._at.take(entries)).astype(np.float64)
        if table.scale is not None:
            weights *= table.scale.take(self._rows.repeat(self._lengths).take(entries))
        if table.weight != 1.0:
            weights *= table.weight
        return weights
