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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle import Bundle
from tlrec_edge.history import UserState
from tlrec_edge.layout import BLOCK, SCAN
from tlrec_edge.scan import ZERO, Scan
from tlrec_edge.topk import lower_bound

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Places = NDArray[np.intp]

_NONE = np.zeros(0, np.intp)
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
    """The heads of one bundle, all or list by list; safe to read from many threads."""

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
        self._probes, self._depth = bundle.search
        self.listed = self._probes > 0
        """Whether heads stand in lists, so that a search may look into the likeliest alone."""
        self._order: Ints | None = array("list_order") if self.listed else None
        self._starts: NDArray[np.int64] = array("list_starts") if self.listed else np.zeros(1, np.int64)
        self._centres: Floats = array("list_centres") if self.listed else np.zeros((0, 0), np.float32)

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
        slack, raised, skip = query.slack, *_raised(state, excluded)
        totals = np.full(len(raised), _MOST)
        if len(raised):
            columns, lifts = state.wide.summed
            slack += _ROUNDING * float(lifts.max())
            if self._order is None:  # in lists, where the head of what is raised stands is not known
                lift = lifts.take(columns.searchsorted(raised)) / query.step
                totals = products.take(raised) + np.ceil(np.minimum(lift, _MOST))

        def reaching(least: int) -> Places:
            at = self._candidates(_reaching(products, maxima, least, self._count))
            return np.concatenate([at[_absent(at, skip)], raised[totals >= least]])

        wanted = 2 * k + 32 + len(excluded)
        first = score(reaching(_whole(lower_bound(products[: self._count], wanted, maxima))))
        if not k <= len(first) <= self._count // _FEW:
            return None
        least = float(np.partition(first, len(first) - k)[len(first) - k])
        left = reaching(_whole((least - slack) / query.step))
        return _best(left, score(left), k) if len(left) <= self._count // _FEW else None

    def likely(
        self, state: UserState, k: int, excluded: Places, score: Callable[[Places], Floats]
    ) -> tuple[Places, Floats]:
        """Return the k best, as ``best`` does, of what is lifted and of the likeliest heads of the likeliest lists.

        The manifest's ``index`` states what share of the best is found so, up to k = LONGEST.
        """
        query = self._query(state).entries
        query[-1] = 0  # the norm of the rest bounds a score, but does not tell which is higher
        places, products = self._probed(query)
        enough = lower_bound(products, max(self._depth, k) + len(excluded))
        raised, skip = _raised(state, excluded)
        at = self._candidates(places[products >= enough])
        found = np.concatenate([at[_absent(at, skip)], raised])
        return _best(found, score(found), k)

    def _candidates(self, places: Places) -> Places:
        return places if self._order is None else self._order.take(places).astype(np.intp)

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

    def _probed(self, query: NDArray[np.int8]) -> tuple[Places, Floats]:
        """Return the places of the heads in the likeliest lists, and their products with the query."""
        entries = query.astype(np.float32)
        likely = self._centres @ entries
        count = min(self._probes, len(likely))
        lists = np.sort(np.argpartition(-likely, count - 1)[:count])
        starts, ends = self._starts.take(lists), self._starts.take(lists + 1)
        parts = [self._columns[:, start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        heads = np.concatenate(parts, 1).astype(np.float32)
        products = entries @ heads  # whole numbers that float32 holds
        products -= ZERO * entries.sum()
        lengths = ends - starts
        places: Places = np.arange(len(products)) + (starts - (lengths.cumsum() - lengths)).repeat(lengths)
        return places, products


def _raised(state: UserState, excluded: Places) -> tuple[Places, Places]:
    """Return what item-item weights lift, without the excluded, and both, rising: what heads need not tell of."""
    skip = np.sort(excluded)
    if not len(state.wide):
        return _NONE, skip
    columns, lifts = state.wide.summed
    raised = columns[lifts > 0]
    return raised[_absent(raised, skip)], np.sort(np.concatenate([skip, raised]))


def _whole(least: float) -> int:
    """Round down, within what products are compared with."""
    return math.floor(max(-_MOST, min(least, _MOST)))


def _reaching(products: Ints, maxima: Ints, least: int, count: int) -> Places:
    """Return the places, of the first ``count``, whose product is at least ``least``, rising."""
    blocks = (maxima >= least).nonzero()[0]
    at = (products.reshape(-1, BLOCK).take(blocks, axis=0).ravel() >= least).nonzero()[0]
    places: Places = (blocks * BLOCK).take(at // BLOCK) + at % BLOCK
    return places[: places.searchsorted(count)]


def _best(candidates: Places, scores: Floats, k: int) -> tuple[Places, Floats]:
    """Return the k best candidates, best first, the lower row first among equals, and their scores."""
    if len(scores) > k:
        found = (scores >= np.partition(scores, len(scores) - k)[len(scores) - k]).nonzero()[0]
        candidates, scores = candidates[found], scores[found]
    order = np.lexsort((candidates, -scores))[:k]
    return candidates[order], scores[order]


def _absent(values: Places, among: Places) -> NDArray[np.bool_]:
    """Mark what is not ``among`` some rising numbers."""
    if not len(among):
        return np.ones(len(values), bool)
    at = np.minimum(among.searchsorted(values), len(among) - 1)
    absent: NDArray[np.bool_] = among.take(at) != values
    return absent
