"""The items of a bundle, and those added later, as one row space; scores of a user state over them.

Rows: 0..C-1 candidates, C..N-1 items known only as history, N.. items added at run time, which are candidates as well.
Positions count candidates only: 0..C-1, then the added ones.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import CANDIDATE_TEXT
from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.ids import ItemId, as_text
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.string_table import StringTable
from tlrec_edge.core.packing import Query, products
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.core.sparse import Workspace
from tlrec_edge.core.topk import top_k
from tlrec_edge.errors import DataError, UnknownIdError
from tlrec_edge.search.ivf import MAX_K, InvertedFile
from tlrec_edge.search.prefix_bound import PrefixBound
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices, Ints, Scales

_BLOCK_ROWS = 4096
_TINY = np.finfo(np.float32).tiny
NEIGHBOURS = 20
"""A new item scores as this many candidates with the nearest texts."""


@dataclass(frozen=True, eq=False)
class AddedItems:
    """Items added at run time; arrays as in the bundle. Never changed: adding more makes a new one.

    An item scores as its ``neighbours`` candidates do, weighted by ``neighbour_weights`` (n, k), plus its bias;
    if all weights are 0, by its own row.
    """

    rows: Mapping[str, int]
    names: tuple[str, ...]
    history_rows: NDArray[Any]
    history_scale: Scales
    candidate_rows: NDArray[Any]
    candidate_scale: Scales
    bias: Floats
    neighbours: Ints
    neighbour_weights: Floats

    @property
    def nbytes(self) -> int:
        arrays = (
            self.history_rows,
            self.history_scale,
            self.candidate_rows,
            self.candidate_scale,
            self.bias,
            self.neighbours,
        )
        return sum(array.nbytes for array in (*arrays, self.neighbour_weights))


class ConcatenatedRows:
    """ItemRows of a mapped array followed by rows in memory."""

    def __init__(self, base: NDArray[Any], extra: NDArray[Any]) -> None:
        self.base, self.extra = base, extra

    def __len__(self) -> int:
        return len(self.base) + len(self.extra)

    def take(self, at: NDArray[Any] | RowRanges, dtype: Any = None) -> NDArray[Any]:
        """Return rows, those of ``RowRanges`` of the mapped array alone."""
        if isinstance(at, RowRanges):
            return at.take_from(self.base, dtype)
        if not len(self.extra):
            rows: NDArray[Any] = self.base.take(at, axis=0)
            return rows if dtype is None else rows.astype(dtype)
        new = np.flatnonzero(at >= len(self.base))
        out: NDArray[Any] = self.base.take(np.minimum(at, len(self.base) - 1), axis=0)
        out[new] = self.extra.take(at[new] - len(self.base), axis=0)
        return out if dtype is None else out.astype(dtype)

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first row, rows) in order, no block across the seam."""
        for first, part in ((0, self.base), (len(self.base), self.extra)):
            for start in range(0, len(part), size):
                yield first + start, part[start : start + size]


class Catalogue:
    """Item arrays of one bundle with one set of added items; safe to read from many threads."""

    def __init__(
        self,
        bundle: Bundle,
        index: IdIndex,
        threads: int = 1,
        added: AddedItems | None = None,
        prefix_bound: PrefixBound | None = None,
        ivf: InvertedFile | None = None,
    ) -> None:
        shape, array = bundle.shape, bundle.array
        self._bundle, self._index, self.shape = bundle, index, shape
        self.added = no_added_items(bundle) if added is None else added
        extra = self.added
        self.history_rows = ConcatenatedRows(array("history_rows"), extra.history_rows)
        self.history_scale = ConcatenatedRows(array("history_scale"), extra.history_scale)
        self.candidate_rows = ConcatenatedRows(array("candidate_rows"), extra.candidate_rows)
        self.scale = ConcatenatedRows(array("candidate_scale"), extra.candidate_scale)
        self.bias = ConcatenatedRows(array("candidate_bias"), extra.bias)
        self._history, self._candidate = shape.history_format, shape.candidate_format
        self._ids = bundle.strings("item_ids")
        self._names = (
            bundle.strings("item_names") if bundle.has("item_names.bytes.npy") else self._ids
        )
        self._added_ids = tuple(extra.rows)
        self.prefix_bound = prefix_bound or (
            PrefixBound(bundle, threads) if bundle.has("head_columns.npy") else None
        )
        self.ivf = ivf or (InvertedFile(bundle) if bundle.has("list_starts.npy") else None)
        self._workspace = threading.local()

    def __len__(self) -> int:
        return len(self.candidate_rows)

    @property
    def hot_bytes(self) -> int:
        return self._index.cache_bytes

    def with_added(self, added: AddedItems) -> Catalogue:
        return Catalogue(
            self._bundle, self._index, added=added, prefix_bound=self.prefix_bound, ivf=self.ivf
        )

    def rows(self, ids: Sequence[ItemId] | NDArray[Any] | ItemRows) -> Indices:
        """Return the row of each item id, -1 where it is unknown. Raises DataError for rows that do not exist."""
        if isinstance(ids, ItemRows):
            if ids.max_row >= self.shape.items + len(self._added_ids):
                raise DataError(
                    f"row {ids.max_row} is none of this bundle's; ask it for its `rows`"
                )
            return ids.values
        found = self._index.rows(ids).astype(np.intp)
        if self._added_ids:
            values = ids.tolist() if isinstance(ids, np.ndarray) else ids
            for at in np.flatnonzero(found < 0).tolist():
                found[at] = self.added.rows.get(as_text(values[at]), -1)
        return found

    def positions(self, rows: Indices) -> Indices:
        """Return the candidate position of each row, -1 for what is no candidate."""
        c, n = self.shape.candidates, self.shape.items
        if c == n and not self._added_ids:
            return rows
        return np.where(rows < c, rows, np.where(rows < n, -1, rows - (n - c)))

    def item_ids(self, positions: Indices) -> list[str]:
        """Return the ids of candidates."""
        return self._texts(self._ids, self._added_ids, positions)

    def names(self, positions: Indices) -> list[str]:
        """Return the names of candidates: their ids, where the bundle has none."""
        return self._texts(self._names, self.added.names, positions)

    def category(self, name: str) -> NDArray[np.bool_]:
        """Return which of the bundle's candidates are of a category. Raises UnknownIdError that names the nearest."""
        if not self._bundle.has("item_category.npy"):
            raise UnknownIdError(
                f"{self._bundle.path} names no categories; export it from a dataset that has them"
            )
        names = self._bundle.strings("category_names")
        known = names.take(range(len(names)))
        if name not in known:
            hint = "".join(
                f"; did you mean {close!r:.80}?" for close in get_close_matches(str(name), known, 1)
            )
            raise UnknownIdError(
                f"no category {name!r:.80} among the {len(known)} of the bundle{hint}"
            )
        mask: NDArray[np.bool_] = self._bundle.array("item_category")[
            : self.shape.candidates
        ] == known.index(name)
        return mask

    def _texts(self, base: StringTable, added: Sequence[str], positions: Indices) -> list[str]:
        c = self.shape.candidates
        if not added:
            return base.take(positions)
        return [base[at] if at < c else added[at - c] for at in positions.tolist()]

    def history_vectors(self, rows: NDArray[Any], out: Floats | None = None) -> Floats:
        """Return the history-side vectors (n, d), in ``out`` where it is given."""
        stored, scale = self.history_rows.take(rows), self.history_scale.take(rows)[:, None]
        if out is None:
            out = np.empty((len(rows), self.shape.d), np.float32)
        out[...] = self._history.values(stored) if self._history.packed else stored
        out *= scale
        return out

    def score(self, state: UserState, positions: NDArray[np.integer[Any]]) -> Floats:
        """Score some candidates. On the exact path each score has the same bits as in ``score_all``."""
        out = self._score_stored(state, positions)
        if not self._added_ids:
            return out
        new = np.flatnonzero(positions >= self.shape.candidates)
        if len(new):
            at = positions[new] - self.shape.candidates
            neighbours, inverse = np.unique(self.added.neighbours[at], return_inverse=True)
            stored_scores = self._score_stored(state, neighbours)
            out[new] = self._neighbour_mean(
                out[new], stored_scores[inverse.reshape(self.added.neighbours[at].shape)], at
            )
        return out

    def _neighbour_mean(
        self, stored_scores: Floats, neighbour_scores: Floats, at: NDArray[np.integer[Any]] | slice
    ) -> Floats:
        """Return the weighted mean of the neighbours' scores (n, k); an item without weights keeps its own."""
        weights, total = self.added.neighbour_weights[at], self.added.bias[at].copy()
        for k in range(
            weights.shape[1]
        ):  # in one order, so that the bits never depend on what else is scored
            total += weights[:, k] * neighbour_scores[:, k]
        return np.where(weights.any(1), total, stored_scores)

    def _score_stored(
        self, state: UserState, positions: NDArray[np.integer[Any]] | RowRanges
    ) -> Floats:
        block = self.candidate_rows.take(positions, None if self._candidate.packed else np.float32)
        if self._candidate.packed:
            block = self._candidate.widen(block)
        wide = self._item_contributions(state, positions) if len(state.wide) else None
        queries = self._queries(state) if self._candidate.packed else None
        return self._combine(
            state, queries, block, self.scale.take(positions), wide, self.bias.take(positions)
        )

    def score_all(self, state: UserState) -> Floats:
        """Score every candidate, block by block through a buffer that stays in cache."""
        out = np.empty(len(self), np.float32)
        wide = None
        if len(state.wide):
            wide = np.zeros(len(self), np.float32)
            columns, values = state.wide.summed
            wide[columns] = values
        buffer, queries = self._buffer(), self._queries(state) if self._candidate.packed else None
        bases = zip(self.scale.blocks(_BLOCK_ROWS), self.bias.blocks(_BLOCK_ROWS), strict=True)
        for (start, rows), ((_, scale), (_, bias)) in zip(
            self.candidate_rows.blocks(_BLOCK_ROWS), bases, strict=True
        ):
            end = start + len(rows)
            block = self._candidate.widen(rows, buffer[: len(rows)])
            part = None if wide is None else wide[start:end]
            out[start:end] = self._combine(state, queries, block, scale, part, bias)
        if len(self.added.neighbours):
            new = out[self.shape.candidates :]
            new[:] = self._neighbour_mean(new, out[self.added.neighbours], slice(None))
        return out

    def best(
        self, state: UserState, k: int, excluded: Indices, exhaustive: bool = True
    ) -> tuple[NDArray[np.intp], Floats]:
        """Return the positions of the k best candidates, best first, and their scores; approximate ones unless ``exhaustive``."""
        c = self.shape.candidates
        approximate = self.ivf is not None and not exhaustive and k <= MAX_K
        for index in (self.ivf if approximate else None, self.prefix_bound):
            if index is None or 8 * k >= c:
                continue
            found = index.search(
                state, k, excluded[excluded < c], lambda at: self._score_stored(state, at)
            )
            if found is not None and len(self) > c:  # the added ones have no prefix
                new = np.setdiff1d(np.arange(c, len(self)), excluded)
                at, scores = np.append(found[0], new), np.append(found[1], self.score(state, new))
                best = np.lexsort((at, -scores))[:k]
                found = at[best], scores[best]
            if found is not None:
                return found
        scores = self.score_all(state)
        scores[excluded] = -np.inf
        best = top_k(scores, k)
        return best, scores[best]

    def _queries(self, state: UserState) -> tuple[Query, Query]:
        return self._candidate.query(0, state.deep), self._candidate.query(1, state.interest)

    def _combine(
        self,
        state: UserState,
        queries: tuple[Query, Query] | None,
        block: Floats,
        scale: Scales,
        wide: Floats | None,
        bias: Floats,
    ) -> Floats:
        # One order of operations for every caller: float32 addition and scaling are not associative.
        d = self.shape.d
        # Whole numbers on the exact path, whatever BLAS does.
        out = (
            products(block, slice(d), state.deep) if queries is None else queries[0].dot(block)
        )  # (n,)
        out *= scale[:, 0]
        out *= state.deep_scale
        if self.shape.r:
            part = (
                products(block, slice(d, None), state.interest)
                if queries is None
                else queries[1].dot(block)
            )
            part *= scale[:, 1]
            part *= state.interest_scale
            out += part
        if wide is not None:
            out += wide
        out += bias
        return _check_finite(out)

    def cosine(self, row: int) -> Floats:
        """Return the cosine of every candidate with an item, by history-side vectors: the one space all items share.

        It needs no scales. Sums over stored integers are exact up to 1,040 columns, so the bits don't depend on BLAS.
        """
        query = self._history.values(self.history_rows.take(np.array([row])))[0]
        length = np.sqrt(query.dot(query))
        out = np.empty(len(self), np.float32)
        c, n = self.shape.candidates, self.shape.items
        for start, rows in self.history_rows.blocks(_BLOCK_ROWS):
            if c <= start < n:
                continue
            block = self._history.values(rows[: c - start] if start < c else rows)
            at = start if start < c else start - (n - c)
            lengths = length * np.sqrt(np.einsum("ij,ij->i", block, block))
            out[at : at + len(block)] = block @ query / np.maximum(lengths, _TINY)
        return _check_finite(out)

    def _item_contributions(
        self, state: UserState, positions: NDArray[np.integer[Any]] | RowRanges
    ) -> Floats:
        if isinstance(positions, RowRanges):
            return positions.dense(*state.wide.summed)
        sums: Workspace | None = getattr(self._workspace, "sums", None)
        if sums is None:
            sums = self._workspace.sums = Workspace(len(self))
        return state.wide.at(positions, sums)

    def _buffer(self) -> Floats:
        buffer: Floats | None = getattr(self._workspace, "buffer", None)
        if buffer is None:
            buffer = self._workspace.buffer = np.empty(
                (_BLOCK_ROWS, self._candidate.columns), np.float32
            )
        return buffer


def no_added_items(bundle: Bundle) -> AddedItems:
    """Return the empty set of added items."""
    array = bundle.array
    k = min(NEIGHBOURS, bundle.shape.candidates) if bundle.has(CANDIDATE_TEXT) else 0
    return AddedItems(
        {},
        (),
        array("history_rows")[:0],
        array("history_scale")[:0],
        array("candidate_rows")[:0],
        array("candidate_scale")[:0],
        np.zeros(0, np.float32),
        np.zeros((0, k), np.int32),
        np.zeros((0, k), np.float32),
    )


def _check_finite(scores: Floats) -> Floats:
    if not scores.dot(scores) < math.inf:  # the cheapest test that NaN and infinity fail
        raise ValueError("scores that are NaN or infinite")
    return scores
