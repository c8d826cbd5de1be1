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

from tlrec_edge.bundle.format import BLOCK, SCAN
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.topk import absent, best_of, lower_bound
from tlrec_edge.search.prefix_scan import Scan
from tlrec_edge.search.user_state import UserState

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Places = NDArray[np.intp]

_NONE = np.zeros(0)
_TOP = 127
_MOST = 2.0**30
_FEW = 4
"""Where more than this part of all candidates is left open, a full scan is no slower."""
_ROUNDING = 8e-6
"""Share of the largest possible score that float32 arithmetic may be off by; dozens of times what it is."""


class _Query(NamedTuple):
    """A user's side of a head, (h + 2,) whole numbers: a score, lifts aside, is at most step * product + slack."""

    entries: NDArray[np.int8]
    step: float
    slack: float


class Heads:
    """The heads of one bundle; safe to read from many threads."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        array = bundle.array
        self._columns: NDArray[np.uint8] = array("head_columns")
        self._count = bundle.shape.candidates
        self._turn, self._mean = array("head_turn"), array("head_mean")
        self._step, self._offset = array("head_step")
        self._reach: list[float] = array("head_reach").tolist()
        self._ones = np.ones(len(self._step))
        self._half = np.full(len(self._step), 0.5 + _ROUNDING * _TOP)  # rounding moved an entry by half a step at most
        self._half[-1] -= 0.5  # and never down
        self.scan = Scan(bundle.read(SCAN), str(bundle.path / SCAN), self._columns, threads)

    def best(
        self, state: UserState, k: int, excluded: Places, score: Callable[[Places], Floats]
    ) -> tuple[Places, Floats] | None:
        """Return the k best candidates, best first, and their scores; None where the bounds leave too many open.

        ``score`` gives the scores of candidates as a full scan would. Among equals the lower row comes first.
        """
        query = self._query(state)
        if (found := self.scan(query.entries)) is None:
            return None
        products, maxima = found
        slack, lifted = query.slack, state.wide.raised
        totals: NDArray[Any] = _NONE
        if len(lifted):
            columns, lifts = state.wide.summed
            slack += _ROUNDING * float(lifts.max())
            lift = lifts.take(columns.searchsorted(lifted)).astype(np.float64) / query.step
            totals = products.take(lifted) + np.ceil(lift)

        def reaching(least: float) -> Places:
            at = _reaching(products, maxima, _whole(least), self._count)
            return np.concatenate([at[absent(at, lifted)], lifted[totals >= least]]) if len(lifted) else at

        wanted = 2 * k + 32 + len(excluded)
        first = reaching(lower_bound(products[: self._count], wanted, maxima))
        if len(first) > self._count // _FEW:
            return None
        best = best_of(first, score(first), k, excluded)[1]
        if len(best) < k:
            return None
        left = reaching(math.floor((float(best[-1]) - slack) / query.step))
        return best_of(left, score(left), k, excluded) if len(left) <= self._count // _FEW else None

    def _query(self, state: UserState) -> _Query:
        user = state.deep * float(state.deep_scale)
        if len(state.interest):
            user = np.concatenate([user, state.interest * float(state.interest_scale)])
        turned = self._turn.dot(user)
        h = len(self._step) - 2
        factor = np.empty(h + 2)
        factor[:h], factor[h] = turned[:h], 1.0
        factor[-1] = math.sqrt(turned[h:].dot(turned[h:]))
        exact = factor * self._step
        size = np.abs(exact)
        step = max(float(size[size.argmax()]) / _TOP, 1e-30)
        entries = np.rint(exact / step)
        # What heads leave out, and what rounding them, the query and float32 scores may hide.
        slack = float(turned.dot(self._mean) + factor.dot(self._offset))
        hidden = size.dot(self._half) + _TOP * np.abs(exact - entries * step).dot(self._ones)
        hidden += _ROUNDING * (abs(slack) + math.sqrt(user.dot(user)) * self._reach[0] + self._reach[1])
        return _Query(entries.astype(np.int8), step, slack + float(hidden))


def _whole(least: float) -> int:
    """Round down, within what products are compared with."""
    return math.floor(max(-_MOST, min(least, _MOST)))


def _reaching(products: Ints, maxima: Ints, least: int, count: int) -> Places:
    """Return the places, of the first ``count``, whose product is at least ``least``, rising."""
    blocks = (maxima >= least).nonzero()[0]
    at = (products.reshape(-1, BLOCK).take(blocks, axis=0).ravel() >= least).nonzero()[0]
    places: Places = (blocks * BLOCK).take(at // BLOCK) + at % BLOCK
    return places[: places.searchsorted(count)]
