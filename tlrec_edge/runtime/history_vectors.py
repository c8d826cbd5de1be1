"""The history-side vectors of all items: what the encoder reads, and what similarity compares."""

from __future__ import annotations

import numpy as np

from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.runtime.added_items import AddedItems, ConcatenatedRows
from tlrec_edge.runtime.finite import check_finite
from tlrec_edge.types import Floats, Indices

_BLOCK_ROWS = 4096
_EXACT_COLUMNS = (2**24 - 1) // 127**2
"""Columns up to which every sum of products of int8 entries is exact in float32: 1,040."""
_TINY = np.finfo(np.float32).tiny


class HistoryVectors:
    """The vectors of one bundle and one set of added items. Safe to use from many threads."""

    def __init__(self, bundle: Bundle, added: AddedItems) -> None:
        self._path, self._shape = bundle.path, bundle.shape
        self._format = bundle.shape.history_format
        self._rows = ConcatenatedRows(bundle.array("history_rows"), added.history_rows)
        self._scale = ConcatenatedRows(bundle.array("history_scale"), added.history_scale)

    def read(self, rows: Indices, out: Floats | None = None) -> Floats:
        """Return the vectors of rows, (n, d), in ``out`` if it is given."""
        stored, scale = self._rows.take(rows), self._scale.take(rows)[:, None]
        if out is None:
            out = np.empty((len(rows), self._shape.d), np.float32)
        out[...] = self._format.values(stored) if self._format.packed else stored
        out *= scale
        return out

    def cosine(self, row: int) -> Floats:
        """Return the cosine of every candidate with an item, (candidates,).

        Candidates and items known from histories only share this space. A cosine needs no scales:
        sums over the stored integers are exact, so they do not depend on BLAS.
        """
        c, n = self._shape.candidates, self._shape.items
        exact = np.float32 if self._shape.d <= _EXACT_COLUMNS else np.float64
        query = self._format.values(self._rows.take(np.array([row])))[0].astype(exact)
        length = np.sqrt(query.dot(query))
        out = np.empty(len(self._rows) - (n - c), np.float32)
        for start, rows in self._rows.blocks(_BLOCK_ROWS):
            if c <= start < n:  # known from histories only
                continue
            block = self._format.values(rows[: c - start] if start < c else rows)
            block = block.astype(exact, copy=False)
            position = start if start < c else start - (n - c)
            lengths = length * np.sqrt(np.einsum("ij,ij->i", block, block))
            products = block @ query
            out[position : position + len(block)] = products / np.maximum(lengths, _TINY)
        return check_finite(out, self._path)
