"""Lists of alike candidates, who stand in the bundle list by list: an inverted file.

The manifest states its recall of the best of all candidates; the more of them a request excludes, the more is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import MANIFEST
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.validate import REMEDY
from tlrec_edge.core.row_ranges import Runs
from tlrec_edge.core.topk import absent, best_of, lower_bound
from tlrec_edge.errors import BundleError
from tlrec_edge.search.user_state import UserState

Floats = NDArray[np.float32]
Places = NDArray[np.intp]
Score = Callable[[Places | Runs], Floats]
"""Gives the scores of candidates."""

RECALL = {10: 0.99, 100: 0.97}
"""Recall at k that a search must reach by a standard error, over users the lists were not made for."""
LONGEST = max(RECALL)
"""The longest answer that recall is measured for; a longer one is exact."""

PART = 1 / 16
"""Of the lists: beyond it, heads give the exact answer sooner (measured with 250,000 candidates)."""


class Lists:
    """The lists of one bundle; safe to read from many threads."""

    def __init__(self, bundle: Bundle) -> None:
        self._starts: NDArray[np.int64] = bundle.array("list_starts")
        self._centres: Floats = bundle.array("list_centres")
        self._pays = math.floor(len(self._centres) * (PART if bundle.has("head_columns.npy") else 0.5))
        probes = _probes(bundle)
        # For 0..LONGEST candidates: in between, what lies between the two.
        self._probes: list[int] = np.ceil(np.interp(range(LONGEST + 1), list(RECALL), probes)).astype(int).tolist()

    def best(self, state: UserState, k: int, excluded: Places, score: Score) -> tuple[Places, Floats] | None:
        """Return the k best candidates, and their scores, of the likeliest lists and of what is lifted.

        Best first; among equals the lower row comes first. The more is ``excluded``, the more lists are looked into:
        of many, only what the likeliest lists hold counts. None where that is more than pays, or leaves fewer than k,
        and for a user of whom nothing is known: recall was not measured on them, and lists tell no bias from another.
        """
        user = np.concatenate([state.deep * state.deep_scale, state.interest * state.interest_scale])
        if not user.any():
            return None
        wanted = k + len(excluded)
        if wanted > LONGEST:
            held = self._starts.searchsorted(excluded, "right") - 1
            wanted = max(LONGEST, k + int(np.isin(held, self._likeliest(user, self._probes[-1])).sum()))
        count = self._probes[wanted] if wanted <= LONGEST else math.ceil(self._probes[-1] * wanted / LONGEST)
        if count > self._pays:
            return None
        places, scores = self._search(user, count, k + len(excluded), score)
        lifted = state.wide.raised
        if len(lifted):
            lifted = lifted[absent(lifted, places)]
            places, scores = np.concatenate([places, lifted]), np.concatenate([scores, score(lifted)])
        best = best_of(places, scores, k, excluded)
        return best if len(best[0]) == k else None

    def _search(self, user: Floats, count: int, most: int, score: Score) -> tuple[Places, Floats]:
        """Return the ``most`` best of the likeliest ``count`` lists among others, rising, and their scores."""
        lists = self._likeliest(user, count)
        runs = Runs(self._starts.take(lists), self._starts.take(lists + 1))
        scores = score(runs)
        at = (scores >= lower_bound(scores, most)).nonzero()[0]
        return runs.rows(at), scores.take(at)

    def _likeliest(self, user: Floats, count: int) -> Places:
        """Return the numbers of the likeliest lists, rising."""
        if count >= len(self._centres):
            return np.arange(len(self._centres))
        likely = self._centres.dot(asked_of(user))
        return np.sort(likely.argpartition(len(likely) - count)[len(likely) - count :])


def asked_of(users: NDArray[Any]) -> NDArray[Any]:
    """Return what centres (L, D + 2) are multiplied with for users (..., D): them, their lengths, and 1.

    A centre holds the list's mean vector, what its best score above the mean for a user of length 1, and its mean bias.
    """
    length = np.sqrt((users * users).sum(-1, keepdims=True))
    return np.concatenate([users, length, np.ones_like(length)], -1)


def _probes(bundle: Bundle) -> list[int]:
    """Return how many lists a search looks into for each k of ``RECALL``. Raises BundleError."""
    index = bundle.manifest.get("index")
    found: list[Any] = [index.get(f"probes@{k}") if isinstance(index, dict) else None for k in RECALL]
    if not all(type(probes) is int and 0 < probes <= bundle.shape.candidates for probes in found):
        raise BundleError(f"{bundle.path / MANIFEST} does not say how many lists to look into (index); {REMEDY}")
    return found
