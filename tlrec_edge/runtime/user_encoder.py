"""From a history to a user state: encoder input, interest counts, item-item sums and rounding."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import ENCODER, REMEDY
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.session import Binding, Graph
from tlrec_edge.core.packing import RowFormat
from tlrec_edge.core.sparse import EMPTY_SUM, SparseSum, SparseTable
from tlrec_edge.errors import BundleError
from tlrec_edge.runtime.catalogue import Catalogue
from tlrec_edge.runtime.history import History
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Doubles, Floats, Indices, Ints, Scales

_NO_ROWS = np.zeros(0, np.intp)
_NO_VALUES = np.zeros(0, np.float32)
_ONE = np.array(1, np.int32)


class _UserBlock(NamedTuple):
    """How one block of a user vector, deep or interest, is rounded to integers.

    With integers within the limit, all dot products with quantized rows are exact in float32.
    """

    step: Floats
    """Value of the integer 1, as an array () because numpy multiplies faster by it."""
    limit: int
    """Largest absolute integer."""
    scale: Floats
    """Factor that turns the block's dot products into its part of a score, ()."""

    def round(self, vector: Floats) -> tuple[Floats, bool]:
        """Return a vector as integers, and whether an entry had to be clipped to the limit."""
        scaled: Floats = vector / self.step
        np.rint(scaled, scaled)
        # No entry exceeds the vector's length: the cheapest test that all are within the limit.
        if scaled.dot(scaled) <= self.limit * self.limit:
            return scaled, False
        return scaled.clip(-self.limit, self.limit), bool((np.abs(scaled) > self.limit).any())


class _LowRank(NamedTuple):
    """The residual's history side: each item's row adds to the last columns of the interests."""

    format: RowFormat
    rows: NDArray[Any]
    scale: Scales
    width: int
    weight: np.float32


class StateBuilder:
    """Turns histories and stored user rows into states. Safe to use from many threads."""

    def __init__(self, bundle: Bundle, *, threads: int, deterministic: bool) -> None:
        array, scoring = bundle.array, bundle.scoring
        self._bundle, self.shape = bundle, bundle.shape
        self.deterministic = deterministic and self.shape.candidate_format.quantized
        self.encoder = _open_encoder(bundle, threads)
        self._local = threading.local()
        self._position_bias, self._event_bias = array("position_bias"), array("event_bias")
        self._age_bias = array("age_bias")
        deep_weight, wide_weight, low_rank_weight = map(np.float32, scoring.weights)
        self._wide = _wide_table(bundle, float(wide_weight))
        self._groups, self._interest_in = array("groups"), array("interest_in")
        self._low_rank = _low_rank(bundle, low_rank_weight)
        self._has_item_part = bool(self.shape.r or self._wide)
        deep_step, interest_step = (np.array(step, np.float32) for step in scoring.scale)
        deep_limit, interest_limit = scoring.limit
        if self.deterministic:
            deep_scale, interest_scale = np.array(deep_step * deep_weight), interest_step
        else:
            deep_scale, interest_scale = np.array(deep_weight), np.array(1, np.float32)
        self._deep = _UserBlock(deep_step, deep_limit, deep_scale)
        self._interest = _UserBlock(interest_step, interest_limit, interest_scale)

    def check(self) -> None:
        """Run the encoder on an empty and on a full history. Raises BundleError if that fails."""
        length, d = self.shape.length, self.shape.d
        for n in (0, length):
            history = np.zeros((1, length, d), np.float32)
            history[0, length - n :] = 1.0
            weight = np.full((1, length), self.shape.pad, np.float32)
            weight[0, length - n :] = self._position_bias[length - n :]
            self.encoder.run({"history": history, "log_weight": weight}, 1)

    def from_history(self, catalogue: Catalogue, history: History) -> tuple[UserState, int]:
        """Return the state of a history, and how many of its items are unknown.

        Raises BundleError if a table of the bundle is damaged.
        """
        items = history.items
        rows, unknown = catalogue.items.rows(items), 0
        events = ages = None
        if not _is_plain_rows(history):
            rows, events, ages = _known(history, rows)
            unknown = len(items) - len(rows)
        if not len(rows):
            return self.popularity(), unknown
        deep = self._encode(catalogue, rows, events, ages)
        if not self._has_item_part:
            seen = rows if len(rows) <= self.shape.max_history else np.unique(rows)
            return self._state(deep, _NO_VALUES, EMPTY_SUM, seen), unknown
        recent, seen = _distinct(rows, self.shape.max_history)
        if recent[-1] >= self.shape.items:  # added items have no item-item weights and no groups
            recent = recent[recent < self.shape.items]
        wide = self._wide_sum(recent) if self._wide else EMPTY_SUM
        return self._state(deep, self._interest_vector(recent), wide, seen), unknown

    def from_user_row(self, row: int) -> UserState:
        """Return the state stored for row ``row`` of the bundle's user table."""
        array, d = self._bundle.array, self.shape.d
        start, end = array("user_wide_indptr")[row : row + 2]
        columns, values = array("user_wide_columns"), array("user_wide_values")
        wide = SparseSum(columns[start:end], values[start:end].astype(np.float64))
        vector = array("user_rows")[row]
        return self._state(vector[:d], vector[d:], wide, _NO_ROWS)

    def popularity(self) -> UserState:
        """Return the state of an unknown user: every score is the item's bias."""
        deep, interest = np.zeros(self.shape.d, np.float32), np.zeros(self.shape.r, np.float32)
        return self._state(deep, interest, EMPTY_SUM, _NO_ROWS)

    def _state(self, deep: Floats, interest: Floats, wide: SparseSum, seen: Indices) -> UserState:
        scales, bundle_id = (self._deep.scale, self._interest.scale), self._bundle.content_id
        if not self.deterministic:
            return UserState(bundle_id, deep.copy(), interest, *scales, wide, seen)
        deep, clipped = self._deep.round(deep)
        if len(interest):
            interest, interest_clipped = self._interest.round(interest)
            clipped |= interest_clipped
        return UserState(bundle_id, deep, interest, *scales, wide, seen, clipped)

    def _encode(
        self, catalogue: Catalogue, rows: Indices, events: Ints | None, ages: Doubles | None
    ) -> Floats:
        """Return the encoder's vector of known items, oldest first, (d,)."""
        # Always batch 1 and full length: a user's vector must not depend on the rest of a batch.
        binding = self._thread_binding()
        history = binding.inputs["history"][0]  # (length, d)
        weight = binding.inputs["log_weight"][0]  # (length,)
        rows = rows[-len(weight) :]
        n = len(rows)
        first = len(weight) - n
        weight[:] = self._position_bias
        if first:
            history[:first] = 0.0
            weight[:first] = self.shape.pad
        catalogue.vectors.read(rows, history[first:])
        if events is not None:
            weight[first:] += self._event_bias.take(events[-n:])
        if ages is not None and len(self._age_bias):
            bucket = np.log2(1.0 + ages[-n:]).astype(np.intp)
            weight[first:] += self._age_bias.take(np.minimum(bucket, len(self._age_bias) - 1))
        vector: Floats = binding.run()[0]
        return vector

    def _thread_binding(self) -> Binding:
        binding: Binding | None = getattr(self._local, "binding", None)
        if binding is None or not binding.belongs_to(self.encoder):
            length, d = self.shape.length, self.shape.d
            inputs = {
                "history": np.zeros((1, length, d), np.float32),
                "log_weight": np.zeros((1, length), np.float32),
            }
            binding = self._local.binding = self.encoder.bind(inputs)
        return binding

    def _wide_sum(self, rows: Indices) -> SparseSum:
        try:
            return self._wide.sum(rows)
        except (IndexError, ValueError) as error:
            raise self._damaged("wide_indptr.npy", error) from error

    def _interest_vector(self, rows: Indices) -> Floats:
        """Return the interest vector of distinct rows from their groups and factors, (r,)."""
        if not self.shape.r:
            return _NO_VALUES
        groups = self._groups.take(rows, axis=0)  # (rows, group columns)
        groups += _ONE
        try:
            counts = np.bincount(groups.ravel())[1:]  # without -1, which means no group
            found = counts.nonzero()[0]
            vectors = self._interest_in.take(found, axis=0)
        except (IndexError, ValueError) as error:
            raise self._damaged("groups.npy", error) from error
        interest: Floats = np.log1p(counts.take(found).astype(np.float32)).dot(vectors)
        if self._low_rank is not None:
            row_format, table, scale, width, weight = self._low_rank
            values = row_format.values(table.take(rows, axis=0))
            interest[self.shape.r - width :] += scale.take(rows).dot(values) * weight
        return interest

    def _damaged(self, file: str, error: Exception) -> BundleError:
        return BundleError(f"{self._bundle.path / file} is damaged: {error}; {REMEDY}")


def _open_encoder(bundle: Bundle, threads: int) -> Graph:
    shape = bundle.shape
    inputs = {"history": (None, shape.length, shape.d), "log_weight": (None, shape.length)}
    name = str(bundle.path / ENCODER)
    return Graph(bundle.read(ENCODER), name, inputs, {"user": (None, shape.d)}, threads)


def _wide_table(bundle: Bundle, weight: float) -> SparseTable:
    array, shape = bundle.array, bundle.shape
    return SparseTable(
        indptr=array("wide_indptr"),
        columns=array("wide_columns"),
        values=array("wide_values"),
        scale=array("wide_scale") if shape.tables.wide == "int8" else None,
        candidates=shape.candidates,
        weight=weight,
        diagonal=float(np.float32(bundle.scoring.repeat_bias)),
    )


def _low_rank(bundle: Bundle, weight: np.float32) -> _LowRank | None:
    if not bundle.has("taste_rows.npy"):
        return None
    rows, shape = bundle.array("taste_rows"), bundle.shape
    width = rows.shape[1] if shape.low_rank_width is None else shape.low_rank_width
    return _LowRank(shape.low_rank_format(width), rows, bundle.array("taste_scale"), width, weight)


def _is_plain_rows(history: History) -> bool:
    """Return whether the items are rows that the encoder can read as they are."""
    items = history.items
    has_rows = type(items) is ItemRows and items.all_known
    return has_rows and history.events is None and history.timestamps is None


def _known(history: History, rows: Indices) -> tuple[Indices, Ints | None, Doubles | None]:
    """Return rows, event codes and ages in days of the known items, in order of time."""
    mask = rows >= 0
    known = int(np.count_nonzero(mask))
    if not known:
        return rows[:0], None, None
    events, ages, order = history.columns(mask)
    if order is not None:
        rows, mask = rows[order], mask[order]
    if known < len(rows):
        order = mask.nonzero()[0] if order is None else order[mask]
        rows = rows[mask]
    if order is not None:
        events = None if events is None else events[order]
        ages = None if ages is None else ages[order]
    return rows, events, ages


def _distinct(rows: Indices, limit: int) -> tuple[Indices, Indices]:
    """Return the ``limit`` most recent distinct rows, and all distinct rows.

    Both are ascending, so that sums over them are always added up in one order.
    """
    if len(rows) <= limit:
        seen = rows.copy()
        seen.sort()
        first = seen[1:] != seen[:-1]
        if np.count_nonzero(first) < len(first):
            seen = np.append(seen[:1], seen[1:][first])
        return seen, seen
    seen, last = np.unique(rows[::-1], return_index=True)
    if len(seen) <= limit:
        return seen, seen
    return seen[np.sort(np.argpartition(last, limit)[:limit])], seen
