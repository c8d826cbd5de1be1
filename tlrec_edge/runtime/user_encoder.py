"""From a history to a user state: encoder input, interest counts, the wide part's sum, rounding."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import ENCODER
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.session import Binding, Graph
from tlrec_edge.core.sparse import EMPTY_SUM, SparseSum, SparseTable
from tlrec_edge.runtime.candidates import Catalogue
from tlrec_edge.runtime.history import History
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices, Ints

_NO_ROWS = np.zeros(0, np.intp)
_NO_VALUES = np.zeros(0, np.float32)
_ONE = np.array(1, np.int32)


class StateBuilder:
    """Turns histories and stored user rows into states; safe to call from many threads."""

    def __init__(self, bundle: Bundle, threads: int, deterministic: bool) -> None:
        array = bundle.array
        self.shape = shape = bundle.shape
        self.deterministic = deterministic and shape.candidate_format.quantized
        self.encoder = Graph(bundle.read(ENCODER), str(bundle.path / ENCODER), ["user"], threads)
        self.encoder.check_inputs(
            {"history": (None, shape.length, shape.d), "log_weight": (None, shape.length)}
        )
        self._groups, self._interest_in = array("groups"), array("interest_in")
        self._factors = (
            (array("taste_rows"), array("taste_scale")) if bundle.has("taste_rows.npy") else None
        )
        if self._factors is not None:
            self._factor_width = (
                self._factors[0].shape[1] if shape.low_rank_width is None else shape.low_rank_width
            )
            self._factor_format = shape.low_rank_format(self._factor_width)
        self._deep_weight, wide_weight, self._factor_weight = map(
            np.float32, bundle.scoring.weights
        )
        self._wide = SparseTable(
            array("wide_indptr"),
            array("wide_columns"),
            array("wide_values"),
            array("wide_scale") if shape.tables.wide == "int8" else None,
            shape.candidates,
            float(wide_weight),
            float(np.float32(bundle.scoring.repeat_bias)),
        )
        self._position_bias, self._event_bias = array("position_bias"), array("event_bias")
        self._age_bias = array("age_bias")
        # Arrays without dimensions: numpy multiplies by one in half the time that a scalar takes.
        self._steps = [np.array(step, np.float32) for step in bundle.scoring.scale]
        self._limits = bundle.scoring.limit
        if self.deterministic:
            self._scales = np.array(self._steps[0] * self._deep_weight), self._steps[1]
        else:
            self._scales = np.array(self._deep_weight), np.array(1, np.float32)
        self._has_item_part = bool(shape.r or self._wide)
        self._local = threading.local()
        self._bundle = bundle

    def check(self) -> None:
        """Run the encoder on an empty and on a full history. Raises BundleError where it gives no vectors."""
        length, d = self.shape.length, self.shape.d
        for n in (0, length):
            history = np.zeros((1, length, d), np.float32)
            history[0, length - n :] = 1.0
            weight = np.full((1, length), self.shape.pad, np.float32)
            weight[0, length - n :] = self._position_bias[length - n :]
            self.encoder.run({"history": history, "log_weight": weight}, (1, d))

    def from_history(self, catalogue: Catalogue, history: History) -> tuple[UserState, int]:
        """Return the state of a history and how many of its items are unknown."""
        items = history.items
        rows, unknown = catalogue.rows(items), 0
        events = ages = None
        if not (
            type(items) is ItemRows
            and items.all_known
            and history.events is None
            and history.timestamps is None
        ):
            rows, events, ages = _known(history, rows)
            unknown = len(items) - len(rows)
        if not len(rows):
            return self.popularity(), unknown
        deep = self._encode(catalogue, rows, events, ages)
        if not self._has_item_part:
            seen = rows if len(rows) <= self.shape.max_history else np.unique(rows)
            return self._state(deep, _NO_VALUES, EMPTY_SUM, seen), unknown
        recent, seen = _distinct(rows, self.shape.max_history)
        if recent[-1] >= self.shape.items:
            recent = recent[recent < self.shape.items]
        wide = self._wide.sum(recent) if self._wide else EMPTY_SUM
        return self._state(deep, self._interest(recent), wide, seen), unknown

    def from_user_row(self, row: int) -> UserState:
        """Return the state stored for row ``row`` of the bundle's user table."""
        array, d = self._bundle.array, self.shape.d
        start, end = array("user_wide_indptr")[row : row + 2]
        wide = SparseSum(
            array("user_wide_columns")[start:end],
            array("user_wide_values")[start:end].astype(np.float64),
        )
        vector = array("user_rows")[row]
        return self._state(vector[:d], vector[d:], wide, _NO_ROWS)

    def popularity(self) -> UserState:
        """Return the state of a user of whom nothing is known: every score is the item's bias."""
        zeros = np.zeros(self.shape.d + self.shape.r, np.float32)
        return self._state(zeros[: self.shape.d], zeros[self.shape.d :], EMPTY_SUM, _NO_ROWS)

    def _state(self, deep: Floats, interest: Floats, wide: SparseSum, seen: Indices) -> UserState:
        if not self.deterministic:
            return UserState(deep.copy(), interest, *self._scales, wide, seen)
        deep, clipped = self._rounded(deep, 0)
        if len(interest):
            interest, more = self._rounded(interest, 1)
            clipped |= more
        return UserState(deep, interest, *self._scales, wide, seen, clipped)

    def _rounded(self, vector: Floats, i: int) -> tuple[Floats, bool]:
        """Return a part of the user vector in whole steps, and whether it had to be cut to its limit."""
        limit = self._limits[i]
        scaled: Floats = vector / self._steps[i]
        np.rint(scaled, scaled)
        if scaled.dot(scaled) <= limit * limit:  # the cheapest test that no entry is beyond
            return scaled, False
        return scaled.clip(-limit, limit), bool((np.abs(scaled) > limit).any())

    def _encode(
        self,
        catalogue: Catalogue,
        rows: Indices,
        events: Ints | None,
        ages: NDArray[np.float64] | None,
    ) -> Floats:
        # Always batch 1 and full length, so that a user's vector does not depend on who else asks.
        binding = self._thread_binding()
        history, weight = (
            binding.inputs["history"][0],
            binding.inputs["log_weight"][0],
        )  # (length, d), (length,)
        rows = rows[-len(weight) :]
        n = len(rows)
        free = len(weight) - n
        weight[:] = self._position_bias
        if free:
            history[:free] = 0.0
            weight[:free] = self.shape.pad
        catalogue.history_vectors(rows, history[free:])
        if events is not None:
            weight[free:] += self._event_bias.take(events[-n:])
        if ages is not None and len(self._age_bias):
            bucket = np.log2(1.0 + ages[-n:]).astype(np.intp)
            weight[free:] += self._age_bias.take(np.minimum(bucket, len(self._age_bias) - 1))
        vector: Floats = binding.run()[0]  # (d,)
        return vector

    def _thread_binding(self) -> Binding:
        binding: Binding | None = getattr(self._local, "binding", None)
        if binding is None or not binding.belongs_to(self.encoder):
            length, d = self.shape.length, self.shape.d
            inputs = {
                "history": np.zeros((1, length, d), np.float32),
                "log_weight": np.zeros((1, length), np.float32),
            }
            binding = self._local.binding = self.encoder.bind(inputs, (1, d))
        return binding

    def _interest(self, rows: Indices) -> Floats:
        if not self.shape.r:
            return _NO_VALUES
        groups = self._groups.take(rows, axis=0)  # (rows, group columns)
        groups += _ONE
        counts = np.bincount(groups.ravel())[1:]  # -1 stands for none
        found = counts.nonzero()[0]
        counted = np.log1p(counts.take(found).astype(np.float32))
        interest: Floats = counted.dot(self._interest_in.take(found, axis=0))  # (r,)
        if self._factors is not None:
            table, scale = self._factors
            factors = scale.take(rows).dot(
                self._factor_format.values(table.take(rows, axis=0))
            )  # (taste,)
            interest[self.shape.r - self._factor_width :] += factors * self._factor_weight
        return interest


def _known(
    history: History, rows: Indices
) -> tuple[Indices, Ints | None, NDArray[np.float64] | None]:
    """Return rows, event codes and ages in days of the items that the bundle knows, in order of time."""
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
    """Return the ``limit`` most recent distinct rows and all distinct rows, both sorted: sums have one order."""
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
