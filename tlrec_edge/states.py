"""From a history to a user state: encoder input, interest counts, the wide part's sum, rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle import Bundle
from tlrec_edge.catalogue import Catalogue
from tlrec_edge.graph import Graph
from tlrec_edge.history import History, UserState
from tlrec_edge.layout import ENCODER
from tlrec_edge.rowwise import Scales

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
_NO_ROWS = np.zeros(0, np.int32)
_NO_VALUES = np.zeros(0, np.float32)
DENSE = 8
"""Up to this many columns an entry, sparse rows are summed into a dense row: cheaper than sorting the entries."""
_NO_PLACES = np.zeros(0, np.intp)


class StateBuilder:
    """Turns histories and stored user rows into states; safe to call from many threads."""

    def __init__(self, bundle: Bundle, threads: int, exact: bool) -> None:
        array = bundle.array
        self.shape = shape = bundle.shape
        self.exact = exact and shape.candidate_format.exact
        self.encoder = Graph(bundle.read(ENCODER), str(bundle.path / ENCODER), ["user"], threads)
        self.encoder.check_inputs({"history": (None, shape.length, shape.d), "log_weight": (None, shape.length)})
        self._wide = array("wide_indptr"), array("wide_columns"), array("wide_values")
        self._wide_scale = array("wide_scale") if shape.tables.wide == "int8" else None
        self._groups, self._interest_in = array("groups"), array("interest_in")
        self._taste = (array("taste_rows"), array("taste_scale")) if bundle.has("taste_rows.npy") else None
        if self._taste is not None:
            self._taste_width = self._taste[0].shape[1] if shape.taste is None else shape.taste
            self._taste_format = shape.taste_format(self._taste_width)
        self._deep_weight, self._wide_weight, self._rest_weight = map(np.float32, bundle.scoring.weights)
        self._position_bias, self._event_bias = array("position_bias"), array("event_bias")
        self._age_bias = array("age_bias")
        self._repeat = np.float32(bundle.scoring.repeat)
        scale, limit = bundle.scoring.scale, bundle.scoring.limit
        self._scale = np.float32(scale[0]), np.float32(scale[1])
        self._deep_step = self._scale[0] * self._deep_weight
        self._limit = np.float32(limit[0]), np.float32(limit[1])
        self._bundle = bundle

    def check(self) -> None:
        """Run the encoder on an empty and on a full history. Raises BundleError where it gives no vectors."""
        for n in (0, self.shape.length):
            self._encode(np.ones((n, self.shape.d), np.float32), self._log_weight(n, None, None, _NO_PLACES))

    def from_history(self, catalogue: Catalogue, history: History) -> tuple[UserState, int]:
        """Return the state of a history and how many of its items are unknown."""
        rows = catalogue.rows(history.items)
        if not (rows >= 0).any():
            return self.popularity(), len(rows)
        events, ages, order = history.columns(rows >= 0)
        if order is not None:
            rows = rows[order]
            events = None if events is None else events[order]
            ages = None if ages is None else ages[order]
        known = np.flatnonzero(rows >= 0)
        tail = known[-self.shape.length :]
        log_weight = self._log_weight(len(tail), events, ages, tail)
        deep = self._encode(catalogue.history_vectors(rows[tail]), log_weight)
        recent, seen = _distinct(rows[known], self.shape.max_history)
        recent = recent[recent < self.shape.items]
        wide = _sum_rows(*self._wide, self._wide_scale, recent, self.shape.candidates)
        if self._wide_weight != 1.0:
            wide = wide[0], wide[1] * self._wide_weight
        if self._repeat:
            wide = _lifted(*wide, recent[recent < self.shape.candidates], self._repeat)
        return self._state(deep, self._interest(recent), wide, seen), len(rows) - len(known)

    def from_user_row(self, row: int) -> UserState:
        """Return the state stored for row ``row`` of the bundle's user table."""
        array, d = self._bundle.array, self.shape.d
        start, end = array("user_wide_indptr")[row : row + 2]
        wide = array("user_wide_columns")[start:end], array("user_wide_values")[start:end]
        vector = array("user_rows")[row]
        return self._state(vector[:d], vector[d:], wide, _NO_ROWS)

    def popularity(self) -> UserState:
        """Return the state of a user of whom nothing is known: every score is the item's bias."""
        zeros = np.zeros(self.shape.d + self.shape.r, np.float32)
        return self._state(zeros[: self.shape.d], zeros[self.shape.d :], (_NO_ROWS, _NO_VALUES), _NO_ROWS)

    def _state(self, deep: Floats, interest: Floats, wide: tuple[Ints, Floats], seen: Ints) -> UserState:
        one = np.float32(1.0)
        if not self.exact:
            return UserState(deep.copy(), interest.copy(), self._deep_weight, one, *wide, seen)
        (deep_scale, interest_scale), (most, interest_most) = self._scale, self._limit
        rounded, interest_rounded = np.rint(deep / deep_scale), np.rint(interest / interest_scale)
        deep = np.clip(rounded, -most, most)
        interest = np.clip(interest_rounded, -interest_most, interest_most)
        clipped = bool((deep != rounded).any() or (interest != interest_rounded).any())
        return UserState(deep, interest, self._deep_step, interest_scale, *wide, seen, clipped)

    def _encode(self, vectors: Floats, log_weight: Floats) -> Floats:
        # Always batch 1 and full length, so that a user's vector does not depend on who else asks.
        length = self.shape.length
        history = np.zeros((1, length, self.shape.d), np.float32)
        weight = np.full((1, length), self.shape.pad, np.float32)
        history[0, length - len(vectors) :] = vectors
        weight[0, length - len(vectors) :] = log_weight
        feed = {"history": history, "log_weight": weight}
        return self.encoder.run(feed, (1, self.shape.d))[0].reshape(-1)  # (d,)

    def _log_weight(
        self, n: int, events: Ints | None, ages: NDArray[np.float64] | None, tail: NDArray[np.intp]
    ) -> Floats:
        weight: Floats = self._position_bias[self.shape.length - n :].copy()
        if events is not None:
            weight += self._event_bias.take(events[tail])
        if ages is not None and len(self._age_bias):
            bucket = np.log2(1.0 + ages[tail]).astype(np.intp)
            weight += self._age_bias.take(np.minimum(bucket, len(self._age_bias) - 1))
        return weight

    def _interest(self, rows: Ints) -> Floats:
        if not self.shape.r:
            return _NO_VALUES
        groups = self._groups.take(rows, axis=0).ravel()
        found, counts = np.unique(groups[groups >= 0], return_counts=True)
        interest: Floats = np.log1p(counts.astype(np.float32)) @ self._interest_in.take(found, axis=0)  # (r,)
        if self._taste is not None:
            table, scale = self._taste
            taste = scale.take(rows) @ self._taste_format.values(table.take(rows, axis=0))  # (taste,)
            interest[self.shape.r - self._taste_width :] += taste * self._rest_weight
        return interest


def _distinct(rows: Ints, most: int) -> tuple[Ints, Ints]:
    """Return the ``most`` most recent distinct rows and all distinct rows, each rising, so that sums have one order."""
    seen, last = np.unique(rows[::-1], return_index=True)
    if len(seen) <= most:
        return seen, seen
    return seen[np.sort(np.argpartition(last, most)[:most])], seen


def _lifted(columns: Ints, values: Floats, rows: Ints, by: np.float32) -> tuple[Ints, Floats]:
    """Return a sparse sum with ``by`` added at ``rows``, both rising."""
    together = np.union1d(columns, rows)
    lifted = np.zeros(len(together), np.float32)
    lifted[np.searchsorted(together, columns)] = values
    lifted[np.searchsorted(together, rows)] += by
    return together, lifted


def _sum_rows(
    indptr: NDArray[np.int64], columns: NDArray[Any], values: NDArray[Any], scale: Scales | None, rows: Ints,
    size: int,
) -> tuple[Ints, Floats]:  # fmt: skip
    """Return columns (rising) and values of the sum of sparse rows, added up in float64 in the order of ``rows``.

    ``scale`` (n,) of the rows of int8 values; None for float32 ones. All columns lie below ``size``.
    """
    starts = indptr.take(rows)
    lengths = indptr.take(rows + 1) - starts
    total = int(lengths.sum())
    if not total:
        return _NO_ROWS, _NO_VALUES
    if total > len(columns):
        raise ValueError("sparse rows longer than their table")  # before a damaged table asks for all memory
    at = np.arange(total) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    column, weights = columns.take(at), values.take(at)
    if scale is not None:
        weights = weights * np.repeat(scale.take(rows).astype(np.float64), lengths)
    if size > DENSE * total:
        found, inverse = np.unique(column, return_inverse=True)
        return found.astype(np.int32, copy=False), np.bincount(inverse, weights=weights).astype(np.float32)
    if int(column.max()) >= size:
        raise ValueError("a sparse row leads to a column that is none")  # before a damaged one asks for all memory
    summed = np.bincount(column, weights=weights, minlength=size).astype(np.float32)  # (size,)
    found = np.flatnonzero(summed).astype(np.int32)
    return found, summed.take(found)
