"""Sums of sparse rows: what a user's history adds to single candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Doubles, Floats, Indices, Scales

_EMPTY = np.zeros(0, np.intp)
_ARANGE = np.arange(4096)
# Arrays without dimensions: numpy sets many entries to one in half the time that a bool takes.
_TRUE, _FALSE = np.array(True), np.array(False)


class Workspace:
    """What one thread reads sums over ``n`` candidates with."""

    def __init__(self, n: int) -> None:
        self.requested = np.zeros(n, bool)
        """Whose sums are asked for; all False between calls."""
        self.slot = np.empty(n, np.int32)
        """Where in the answer they stand; of the others anything."""


class SparseSum:
    """A sum over candidates, kept as its entries (m,) until it is read: ``weights`` at ``columns``, in any order.

    Entries of one column are added up in float64 in the order they stand, however the sum is read.
    """

    def __init__(self, columns: NDArray[Any], weights: Doubles | Weights) -> None:
        self.columns, self.weights = columns, weights
        self._summed: tuple[NDArray[np.intp], Floats] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def __reduce__(self) -> tuple[type[SparseSum], tuple[NDArray[Any], Doubles]]:
        """Leave this process, or be copied, without the table that the weights are read from."""
        return SparseSum, (self.columns, self.weights.take(np.arange(len(self))))

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
    def positive_columns(self) -> NDArray[np.intp]:
        """The columns whose sum is above 0, rising."""
        if not len(self):
            return _EMPTY
        columns, sums = self.summed
        return columns[sums > 0]

    def _sum(self) -> tuple[NDArray[np.intp], Floats]:
        # One sort of the column and the entry's slot together: stable, and twice as fast as a stable sort.
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
        """Return the sums at ``positions`` (n,). ``workspace`` is the caller's alone."""
        n, requested, slot = len(positions), workspace.requested, workspace.slot
        requested[positions] = _TRUE
        try:
            hit = requested.take(self.columns).nonzero()[0]
        finally:
            requested[positions] = _FALSE
        if not len(hit):
            return np.zeros(n, np.float32)
        slot[positions] = np.arange(n, dtype=np.int32)
        sums = np.bincount(slot.take(self.columns.take(hit)), self.weights.take(hit), n)
        return sums.take(slot.take(positions)).astype(
            np.float32
        )  # a position that is requested twice has one slot


EMPTY_SUM = SparseSum(np.zeros(0, np.int32), np.zeros(0, np.float64))


class SparseTable:
    """Sparse rows over candidates: the arrays of CSR, int8 values with the ``scale`` (n,) of their rows.

    All are multiplied by ``weight``. ``diagonal`` is added to a row's own column, where it is one of ``candidates``.
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
        """Return the sum of ``rows``, in their order."""
        stops = self._stops.take(rows)
        lengths = stops - self._starts.take(rows)
        ends = np.add.accumulate(lengths)
        total = int(ends[-1]) if len(ends) else 0
        if total > len(self._columns):
            raise ValueError(
                "sparse rows longer than their table"
            )  # before a damaged table asks for all memory
        stops -= ends
        at = stops.repeat(lengths)
        at += _ARANGE[:total] if total <= len(_ARANGE) else np.arange(total)
        columns = self._columns.take(at)
        if self.diagonal:
            columns = np.concatenate([columns, rows[rows < self._candidates]])
        return SparseSum(columns, Weights(self, at, rows, lengths))


class Weights:
    """The weights of the entries of a sum of ``rows``, read when they are asked for: most of them never are.

    ``at`` (m,) is where the table holds them; entries beyond are of its diagonal.
    """

    def __init__(self, table: SparseTable, at: Indices, rows: Indices, lengths: Indices) -> None:
        self._table, self._at, self._rows, self._lengths = table, at, rows, lengths

    @property
    def nbytes(self) -> int:
        return self._at.nbytes + self._rows.nbytes + self._lengths.nbytes

    def take(self, entries: Indices) -> Doubles:
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
