"""Lists of alike candidates, who stand in the bundle list by list: an inverted file. The manifest states its recall."""

from __future__ import annotations

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
    ) -> tuple[Places, Floats]:
        """Return the k best candidates, and their scores, of the likeliest lists and of what is lifted.

        Best first; among equals the lower row comes first. ``score`` gives the scores of candidates.
        """
        user = np.concatenate([state.deep * state.deep_scale, state.interest * state.interest_scale, _ONE])
        likely = self._centres.dot(user)  # the mean score of each list
        lists = likely.argpartition(len(likely) - self._probes)[len(likely) - self._probes :]
        lists.sort()
        starts, stops = self._starts.take(lists), self._starts.take(lists + 1)
        if self._heads is None:
            runs = zip(starts.tolist(), stops.tolist(), strict=True)
            places = np.concatenate([np.arange(start, stop) for start, stop in runs])
        else:
            places = self._heads.reach(state, k, excluded, score, starts, stops)
        lifted = state.wide.raised
        if len(lifted):
            places = np.concatenate([places, lifted[absent(lifted, places)]])
        return best_of(places, score(places), k, excluded)
