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
from tlrec_edge.layout import SCAN
from tlrec_edge.scan import ZERO, Scan
from tlrec_edge.topk import lower_bound

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Places = NDArray[np.intp]

_NONE = np.zeros(0, np.intp)
_TOP = 127
_MOST = 2**30
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
        self._reach = array("head_reach")
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
        products, maxima = found[0][: self._count], found[1]
        enough = lower_bound(products, 2 * k + 32 + len(excluded), maxima)
        slack, lifted = query.slack, _NONE
        if len(state.wide):
            columns, lifts = state.wide.summed
            slack += _ROUNDING * float(np.abs(lifts).max())
            if self._order is None:
                products[columns] += np.ceil(np.clip(lifts / query.step, -_MOST, _MOST)).astype(np.int32)
            else:
                lifted = columns[lifts > 0]
        ranking = _Ranking(score, excluded, lifted)
        first = ranking.scores(self._candidates((products >= enough).nonzero()[0]))[1]
        if not k <= len(first) <= self._count // 4:
            return None
        least = float(np.partition(first, len(first) - k)[len(first) - k])
        left = (products >= math.floor(min((least - slack) / query.step, _MOST / 2))).nonzero()[0]
        return ranking.best(self._candidates(left), k) if len(left) <= self._count // 4 else None

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
        lifted = _NONE
        if len(state.wide):
            columns, lifts = state.wide.summed
            lifted = columns[lifts > 0]
        return _Ranking(score, excluded, lifted).best(self._candidates(places[products >= enough]), k)

    def _candidates(self, places: Places) -> Places:
        return places if self._order is None else self._order.take(places).astype(np.intp)

    def _query(self, state: UserState) -> _Query:
        user = np.concatenate([state.deep * float(state.deep_scale), state.interest * float(state.interest_scale)])
        turned = self._turn @ user
        h = len(self._step) - 2
        rest = math.sqrt(turned[h:].dot(turned[h:]))
        factor = np.concatenate([turned[:h], [1.0, rest]])
        exact = factor * self._step
        size = np.abs(exact)
        step = max(float(size.max()) / _TOP, 1e-30)
        entries = np.rint(exact / step)
        slack = float(turned @ self._mean + factor @ self._offset + size[:-1].sum() / 2)
        slack += _TOP * float(np.abs(exact - entries * step).sum())
        slack += _ROUNDING * (_TOP * float(size.sum()) + abs(slack))
        slack += _ROUNDING * (math.sqrt(user.dot(user)) * float(self._reach[0]) + float(self._reach[1]))
        return _Query(entries.astype(np.int8), step, slack)

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


class _Ranking:
    """Whole scores of some candidates and of all that are lifted: where their heads stand in lists is not known."""

    def __init__(self, score: Callable[[Places], Floats], excluded: Places, lifted: Places) -> None:
        self._score, self._skip = score, np.sort(excluded)
        self._lifted = lifted
        if len(lifted):
            self._lifted = lifted[_absent(lifted, self._skip)]
            self._skip = np.sort(np.concatenate([self._skip, lifted]))
            self._lifts = score(self._lifted)

    def scores(self, candidates: Places) -> tuple[Places, Floats]:
        """Return the candidates that are not excluded, with those that are lifted, and their scores."""
        kept = candidates[_absent(candidates, self._skip)]
        if not len(self._lifted):
            return kept, self._score(kept)
        return np.concatenate([kept, self._lifted]), np.concatenate([self._score(kept), self._lifts])

    def best(self, candidates: Places, k: int) -> tuple[Places, Floats]:
        """Return the k best of them, best first, the lower row first among equals, and their scores."""
        kept, scores = self.scores(candidates)
        if len(kept) > k:
            found = (scores >= np.partition(scores, len(scores) - k)[len(scores) - k]).nonzero()[0]
            kept, scores = kept[found], scores[found]
        order = np.lexsort((kept, -scores))[:k]
        return kept[order], scores[order]


def _absent(values: Places, among: Places) -> NDArray[np.bool_]:
    """Mark what is not ``among`` some rising numbers."""
    if not len(among):
        return np.ones(len(values), bool)
    at = np.minimum(among.searchsorted(values), len(among) - 1)
    absent: NDArray[np.bool_] = among.take(at) != values
    return absent
