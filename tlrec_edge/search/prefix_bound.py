"""Exact top-k that reads few whole rows: a head, a few int8 entries an item, bounds the item's score from above.

A score is the product of a user vector x and an item vector z, plus bias and lifts. Both are turned, without changing
the product, so that the first h of D coordinates say most of it; for the others Cauchy and Schwarz give a bound:
x . z <= x[:h] . z[:h] + |x[h:]| |z[h:]|. A head holds z[:h], the bias and |z[h:]|, the last rounded up; what rounding
the others and the user's side may hide is a constant for each user. Items whose bound reaches the k-th best of the
scores found first are scored whole, so the answer is that of a full scan. (The idea of RecJPQPrune, arXiv 2505.00560,
on turned vectors.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import PREFIX_SCAN, SCAN_BLOCK
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.topk import absent, lower_bound, top_k_of
from tlrec_edge.search.prefix_scan import PrefixScan
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices, Ints

_EMPTY = np.zeros(0)
_INT8_MAX = 127
_PRODUCT_LIMIT = 2.0**30
_MAX_UNPRUNED = 1 / 4
"""Where more than this part of all candidates is left open, a full scan is no slower."""
_ROUNDING = 8e-6
"""Share of the largest possible score that float32 arithmetic may be off by; dozens of times what it is."""


class _Query(NamedTuple):
    """A user's side of a head, (h + 2,) whole numbers: a score, lifts aside, is at most step * product + slack."""

    entries: NDArray[np.int8]
    step: float
    slack: float


class PrefixBound:
    """The heads of one bundle; safe to read from many threads."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        array = bundle.array
        self._columns: NDArray[np.uint8] = array("head_columns")
        self._count = bundle.shape.candidates
        self._rotation, self._mean = array("head_turn"), array("head_mean")
        self._step, self._offset = array("head_step")
        self._max_norm, self._max_bias = array("head_reach").tolist()
        self._ones = np.ones(len(self._step))
        # Rounding moved an entry by half a step at most,
        self._entry_error = np.full(len(self._step), 0.5 + _ROUNDING * _INT8_MAX)
        self._entry_error[-1] -= 0.5  # and the last one never down
        self.scan = PrefixScan(
            bundle.read(PREFIX_SCAN), str(bundle.path / PREFIX_SCAN), self._columns, threads
        )

    def search(
        self, state: UserState, k: int, excluded: Indices, score: Callable[[Indices], Floats]
    ) -> tuple[Indices, Floats] | None:
        """Return the k best candidates, best first, and their scores; None where the bounds leave too many open.

        ``score`` gives the scores of candidates as a full scan would. Among equals the lower row comes first.
        """
        query = self._query(state)
        if (found := self.scan(query.entries)) is None:
            return None
        products, maxima = found
        slack, boosted = query.slack, state.wide.positive_columns
        totals: NDArray[Any] = _EMPTY
        if len(boosted):
            columns, contributions = state.wide.summed
            slack += _ROUNDING * float(contributions.max())
            contribution = (
                contributions.take(columns.searchsorted(boosted)).astype(np.float64) / query.step
            )
            totals = products.take(boosted) + np.ceil(contribution)

        def survivors(threshold: float) -> Indices:
            at = _scan_survivors(products, maxima, _floor_clipped(threshold), self._count)
            if not len(boosted):
                return at
            return np.concatenate([at[absent(at, boosted)], boosted[totals >= threshold]])

        first_k = 2 * k + 32 + len(excluded)
        first = survivors(lower_bound(products[: self._count], first_k, maxima))
        if len(first) > self._count * _MAX_UNPRUNED:
            return None
        best = top_k_of(first, score(first), k, excluded)[1]
        if len(best) < k:
            return None
        remaining = survivors(math.floor((float(best[-1]) - slack) / query.step))
        if len(remaining) > self._count * _MAX_UNPRUNED:
            return None
        return top_k_of(remaining, score(remaining), k, excluded)

    def _query(self, state: UserState) -> _Query:
        user = state.deep * float(state.deep_scale)
        if len(state.interest):
            user = np.concatenate([user, state.interest * float(state.interest_scale)])
        rotated = self._rotation.dot(user)
        h = len(self._step) - 2
        factors = np.empty(h + 2)
        factors[:h], factors[h] = rotated[:h], 1.0
        factors[-1] = math.sqrt(rotated[h:].dot(rotated[h:]))
        unrounded = factors * self._step
        magnitude = np.abs(unrounded)
        step = max(float(magnitude[magnitude.argmax()]) / _INT8_MAX, 1e-30)
        entries = np.rint(unrounded / step)
        # What heads leave out, and what rounding them, the query and float32 scores may hide.
        slack = float(rotated.dot(self._mean) + factors.dot(self._offset))
        error = magnitude.dot(self._entry_error) + _INT8_MAX * np.abs(
            unrounded - entries * step
        ).dot(self._ones)
        error += _ROUNDING * (
            abs(slack) + math.sqrt(user.dot(user)) * self._max_norm + self._max_bias
        )
        return _Query(entries.astype(np.int8), step, slack + float(error))


def _floor_clipped(threshold: float) -> int:
    """Round down, within what products are compared with."""
    return math.floor(max(-_PRODUCT_LIMIT, min(threshold, _PRODUCT_LIMIT)))


def _scan_survivors(products: Ints, maxima: Ints, threshold: int, count: int) -> Indices:
    """Return the places, of the first ``count``, whose product is at least ``threshold``, rising."""
    blocks = (maxima >= threshold).nonzero()[0]
    at = (products.reshape(-1, SCAN_BLOCK).take(blocks, axis=0).ravel() >= threshold).nonzero()[0]
    positions: Indices = (blocks * SCAN_BLOCK).take(at // SCAN_BLOCK) + at % SCAN_BLOCK
    return positions[: positions.searchsorted(count)]
