"""Scores of a user state over the candidates: some of them, all of them, or the best."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tlrec_edge.bundle.format import REMEDY
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.packing import Query, products
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.core.sparse import Workspace
from tlrec_edge.core.topk import top_k
from tlrec_edge.errors import BundleError
from tlrec_edge.runtime.added_items import AddedItems, ConcatenatedRows
from tlrec_edge.runtime.finite import check_finite
from tlrec_edge.search.index import Index, TopK
from tlrec_edge.search.ivf import MAX_K, InvertedFile
from tlrec_edge.search.prefix_bound import PrefixBound
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices, Scales

_BLOCK_ROWS = 4096
_MIN_CANDIDATES_PER_RESULT = 8
"""With fewer candidates for each result, a full scan is as fast as an index."""


class Indexes(NamedTuple):
    """The search indexes of a bundle; None for a kind that it does not have."""

    ivf: InvertedFile | None
    prefix_bound: PrefixBound | None

    @classmethod
    def open(cls, bundle: Bundle, threads: int) -> Indexes:
        """Open the indexes that the bundle holds. Raises BundleError."""
        has_ivf, has_prefix_bound = (
            bundle.has(f"{name}.npy") for name in ("list_starts", "head_columns")
        )
        return cls(
            InvertedFile(bundle) if has_ivf else None,
            PrefixBound(bundle, threads) if has_prefix_bound else None,
        )


class Scorer:
    """The candidates of one bundle and one set of added items. Safe to use from many threads."""

    def __init__(self, bundle: Bundle, added: AddedItems, indexes: Indexes) -> None:
        self._path, self._shape = bundle.path, bundle.shape
        self._added, self._indexes = added, indexes
        self._format = bundle.shape.candidate_format
        array = bundle.array
        self._rows = ConcatenatedRows(array("candidate_rows"), added.candidate_rows)
        self._scale = ConcatenatedRows(array("candidate_scale"), added.candidate_scale)
        self._bias = ConcatenatedRows(array("candidate_bias"), added.bias)
        self._has_added = bool(added)
        self._row_dtype = None if self._format.packed else np.float32
        self._deep, self._interest = slice(bundle.shape.d), slice(bundle.shape.d, None)
        self._thread = threading.local()

    def __len__(self) -> int:
        return len(self._rows)

    def score(self, state: UserState, positions: Indices) -> Floats:
        """Return the scores of some candidates, (n,).

        If scores are deterministic, each has the same bits as in ``score_all``.
        """
        scores = self._score_stored(state, positions)
        if not self._has_added:
            return scores
        new = np.flatnonzero(positions >= self._shape.candidates)
        if len(new):
            at = positions[new] - self._shape.candidates
            neighbours = self._added.neighbours[at]
            distinct, inverse = np.unique(neighbours.astype(np.intp), return_inverse=True)
            neighbour_scores = self._score_stored(state, distinct)[
                inverse.reshape(neighbours.shape)
            ]
            scores[new] = self._neighbour_mean(scores[new], neighbour_scores, at)
        return scores

    def score_all(self, state: UserState) -> Floats:
        """Return the scores of all candidates: block by block, so that a block stays in cache."""
        scores = np.empty(len(self), np.float32)
        contributions = None
        if len(state.wide):
            contributions = np.zeros(len(self), np.float32)
            columns, values = state.wide.summed
            contributions[columns] = values
        queries = self._queries(state) if self._format.packed else None
        buffer = self._buffer()
        scales, biases = self._scale.blocks(_BLOCK_ROWS), self._bias.blocks(_BLOCK_ROWS)
        blocks = zip(self._rows.blocks(_BLOCK_ROWS), scales, biases, strict=True)
        for (start, stored), (_, scale), (_, bias) in blocks:
            at = slice(start, start + len(stored))
            rows = self._format.widen(stored, buffer[: len(stored)])
            part = None if contributions is None else contributions[at]
            scores[at] = self._combine(state, queries, rows, scale, part, bias)
        if self._has_added:
            new = scores[self._shape.candidates :]
            new[:] = self._neighbour_mean(new, scores[self._added.neighbours], slice(None))
        return scores

    def top_k(self, state: UserState, k: int, excluded: Indices, exhaustive: bool = False) -> TopK:
        """Return the k best candidates except the ``excluded`` positions.

        Unless ``exhaustive``, the inverted file may miss some of them.
        """
        self._check_columns(state)
        for index in self._usable_indexes(k, exhaustive):
            stored = excluded[excluded < self._shape.candidates]
            found = index.search(state, k, stored, lambda at: self._score_stored(state, at))
            if found is not None:
                return self._with_added(found, state, k, excluded)
        scores = self.score_all(state)
        scores[excluded] = -np.inf
        best = top_k(scores, k)
        return TopK(best, scores[best])

    def _usable_indexes(self, k: int, exhaustive: bool) -> Iterator[Index]:
        if _MIN_CANDIDATES_PER_RESULT * k >= self._shape.candidates:
            return
        ivf, prefix_bound = self._indexes
        if ivf is not None and not exhaustive and k <= MAX_K:
            yield ivf
        if prefix_bound is not None:
            yield prefix_bound

    def _with_added(self, found: TopK, state: UserState, k: int, excluded: Indices) -> TopK:
        """Return the k best of an index's answer and of the added items, which no index holds."""
        if not self._has_added:
            return found
        new = np.setdiff1d(np.arange(self._shape.candidates, len(self)), excluded)
        positions = np.append(found.positions, new)
        scores = np.append(found.scores, self.score(state, new))
        best = np.lexsort((positions, -scores))[:k]
        return TopK(positions[best], scores[best])

    def _score_stored(self, state: UserState, positions: Indices | RowRanges) -> Floats:
        """Return the scores of candidates by their own rows."""
        rows = self._rows.take(positions, self._row_dtype)
        if self._format.packed:
            rows = self._format.widen(rows)
        contributions = self._contributions(state, positions) if len(state.wide) else None
        queries = self._queries(state) if self._format.packed else None
        scale, bias = self._scale.take(positions), self._bias.take(positions)
        return self._combine(state, queries, rows, scale, contributions, bias)

    def _queries(self, state: UserState) -> tuple[Query, Query]:
        return self._format.query(0, state.deep), self._format.query(1, state.interest)

    def _combine(
        self,
        state: UserState,
        queries: tuple[Query, Query] | None,
        rows: Floats,
        scale: Scales,
        contributions: Floats | None,
        bias: Floats,
    ) -> Floats:
        """Return the scores (n,) of candidates with these rows (n, columns) and scales (n, 2).

        ``queries`` are the user's if rows are packed, ``contributions`` (n,) its item-item
        contributions if there are any.
        """
        # One order of operations for every caller: float32 arithmetic is not associative. If scores
        # are deterministic, the products are sums of integers, exact in whatever order BLAS adds.
        scores = queries[0].dot(rows) if queries else products(rows, self._deep, state.deep)
        scores *= scale[:, 0]
        scores *= state.deep_scale
        if self._shape.r:
            if queries is None:
                interest = products(rows, self._interest, state.interest)
            else:
                interest = queries[1].dot(rows)
            interest *= scale[:, 1]
            interest *= state.interest_scale
            scores += interest
        if contributions is not None:
            scores += contributions
        scores += bias
        return check_finite(scores, self._path)

    def _neighbour_mean(
        self, own_scores: Floats, neighbour_scores: Floats, at: Indices | slice
    ) -> Floats:
        """Return the scores of added items from those of their neighbours, (n, k)."""
        weights, total = self._added.neighbour_weights[at], self._added.bias[at].copy()
        # One neighbour after the other: the bits must not depend on how many items are scored.
        for k in range(weights.shape[1]):
            total += weights[:, k] * neighbour_scores[:, k]
        return np.where(weights.any(1), total, own_scores)

    def _contributions(self, state: UserState, positions: Indices | RowRanges) -> Floats:
        if isinstance(positions, RowRanges):
            return positions.dense(*state.wide.summed)
        sums: Workspace | None = getattr(self._thread, "sums", None)
        if sums is None:
            sums = self._thread.sums = Workspace(len(self))
        try:
            return state.wide.at(positions, sums)
        except IndexError as error:
            raise self._damaged_columns() from error

    def _check_columns(self, state: UserState) -> None:
        """Raise BundleError if an item-item weight belongs to a candidate that does not exist."""
        if len(state.wide):
            columns, _ = state.wide.summed  # ascending
            if columns[0] < 0 or columns[-1] >= len(self):
                raise self._damaged_columns()

    def _damaged_columns(self) -> BundleError:
        return BundleError(
            f"{self._path} is damaged: its item-item weights (wide_columns.npy or "
            f"user_wide_columns.npy) name candidates that do not exist; {REMEDY}"
        )

    def _buffer(self) -> Floats:
        buffer: Floats | None = getattr(self._thread, "buffer", None)
        if buffer is None:
            shape = _BLOCK_ROWS, self._format.columns
            buffer = self._thread.buffer = np.empty(shape, np.float32)
        return buffer
