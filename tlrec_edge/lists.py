"""Lists of alike candidates, who stand in the bundle list by list: an inverted file.

The manifest states its recall of the best of all candidates; the more of them a request excludes, the more is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle import Bundle
from tlrec_edge.heads import Heads
from tlrec_edge.history import UserState
from tlrec_edge.topk import absent, best_of

Floats = NDArray[np.float32]
Places = NDArray[np.intp]
_ONE = np.ones(1, np.float32)

RECALL = {10: 0.995, 100: 0.98}
"""Recall at k that a search must reach, over users the lists were not made for."""
LONGEST = max(RECALL)
"""The longest answer that recall is measured for; a longer one is exact."""


class Lists:
    """The lists of one bundle; safe to read from many threads. ``heads``, if there are any, spare most whole rows."""

    def __init__(self, bundle: Bundle, heads: Heads | None) -> None:
        self._heads = heads
        self._starts: NDArray[np.int64] = bundle.array("list_starts")
        self._centres: Floats = bundle.array("list_centres")
        self._probes = min(bundle.probes, len(self._centres))

    def best(
        self, state: UserState, k: int, excluded: Places, score: Callable[[Places], Floats]
    ) -> tuple[Places, Floats] | None:
        """Return the k best candidates, and their scores, of the likeliest lists and of what is lifted.

        Best first; among equals the lower row comes first. ``score`` gives the scores of candidates. The more of the
        lists is ``excluded``, the more lists are looked into. None where that is most of them, or leaves fewer than k.
        """
        user = np.concatenate([state.deep * state.deep_scale, state.interest * state.interest_scale, _ONE])
        likely = self._centres.dot(user)  # the mean score of each list
        lists = _largest(likely, self._probes)
        if len(excluded):
            held = self._starts.searchsorted(excluded, "right") - 1
            wanted = k + int(np.count_nonzero(np.isin(held, lists)))
            if wanted > LONGEST:
                lists = _largest(likely, math.ceil(self._probes * wanted / LONGEST))
        if 2 * len(lists) > max(len(likely), 2 * self._probes):
            return None
        starts, stops = self._starts.take(lists), self._starts.take(lists + 1)
        if self._heads is None:
            runs = zip(starts.tolist(), stops.tolist(), strict=True)
            places = np.concatenate([np.arange(start, stop) for start, stop in runs])
        else:
            places = self._heads.reach(state, k, excluded, score, starts, stops)
        lifted = state.wide.raised
        if len(lifted):
            places = np.concatenate([places, lifted[absent(lifted, places)]])
        best = best_of(places, score(places), k, excluded)
        return best if len(best[0]) == k else None


def _largest(likely: Floats, count: int) -> Places:
    """Return the lists of the largest means, rising."""
    if count >= len(likely):
        return np.arange(len(likely))
    return np.sort(likely.argpartition(len(likely) - count)[len(likely) - count :])
