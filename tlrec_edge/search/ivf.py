"""Lists of alike candidates, who stand in the bundle list by list: an inverted file.

The manifest states its recall of the best of all candidates; the more of them a request excludes, the more is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import MANIFEST, REMEDY
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.core.topk import absent, lower_bound, top_k_of
from tlrec_edge.errors import BundleError
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices

ScoreFunction = Callable[[Indices | RowRanges], Floats]
"""Gives the scores of candidates."""

MIN_RECALL = {10: 0.99, 100: 0.97}
"""Recall at k that a search must reach by a standard error, over users the lists were not made for."""
MAX_K = max(MIN_RECALL)
"""The longest answer that recall is measured for; a longer one is exact."""

MAX_PROBED_FRACTION = 1 / 16
"""Of the lists: beyond it, heads give the exact answer sooner (measured with 250,000 candidates)."""


class InvertedFile:
    """The lists of one bundle; safe to read from many threads."""

    def __init__(self, bundle: Bundle) -> None:
        self._starts: NDArray[np.int64] = bundle.array("list_starts")
        self._centroids: Floats = bundle.array("list_centres")
        self._max_probes = math.floor(
            len(self._centroids) * (MAX_PROBED_FRACTION if bundle.has("head_columns.npy") else 0.5)
        )
        probes_by_k = _read_probes(bundle)
        # For 0..MAX_K candidates: in between, what lies between the two.
        self._probes: list[int] = (
            np.ceil(np.interp(range(MAX_K + 1), list(MIN_RECALL), probes_by_k)).astype(int).tolist()
        )

    def search(
        self, state: UserState, k: int, excluded: Indices, score: ScoreFunction
    ) -> tuple[Indices, Floats] | None:
        """Return the k best candidates, and their scores, of the likeliest lists and of what is lifted.

        Best first; among equals the lower row comes first. The more is ``excluded``, the more lists are looked into:
        of many, only what the likeliest lists hold counts. None where that is more than pays, or leaves fewer than k,
        and for a user of whom nothing is known: recall was not measured on them, and lists tell no bias from another.
        """
        user = np.concatenate(
            [state.deep * state.deep_scale, state.interest * state.interest_scale]
        )
        if not user.any():
            return None
        needed = k + len(excluded)
        if needed > MAX_K:
            excluded_clusters = self._starts.searchsorted(excluded, "right") - 1
            needed = max(
                MAX_K,
                k
                + int(
                    np.isin(excluded_clusters, self._best_clusters(user, self._probes[-1])).sum()
                ),
            )
        probes = (
            self._probes[needed]
            if needed <= MAX_K
            else math.ceil(self._probes[-1] * needed / MAX_K)
        )
        if probes > self._max_probes:
            return None
        positions, scores = self._search(user, probes, k + len(excluded), score)
        boosted = state.wide.positive_columns
        if len(boosted):
            boosted = boosted[absent(boosted, positions)]
            positions, scores = (
                np.concatenate([positions, boosted]),
                np.concatenate([scores, score(boosted)]),
            )
        best = top_k_of(positions, scores, k, excluded)
        return best if len(best[0]) == k else None

    def _search(
        self, user: Floats, probes: int, k: int, score: ScoreFunction
    ) -> tuple[Indices, Floats]:
        """Return the ``k`` best of the ``probes`` best lists, and others, rising, and their scores."""
        clusters = self._best_clusters(user, probes)
        ranges = RowRanges(self._starts.take(clusters), self._starts.take(clusters + 1))
        scores = score(ranges)
        at = (scores >= lower_bound(scores, k)).nonzero()[0]
        return ranges.to_rows(at), scores.take(at)

    def _best_clusters(self, user: Floats, count: int) -> Indices:
        """Return the numbers of the likeliest lists, rising."""
        if count >= len(self._centroids):
            return np.arange(len(self._centroids))
        cluster_scores = self._centroids.dot(augment_queries(user))
        return np.sort(
            cluster_scores.argpartition(len(cluster_scores) - count)[len(cluster_scores) - count :]
        )


def augment_queries(users: NDArray[Any]) -> NDArray[Any]:
    """Return what centres (L, D + 2) are multiplied with for users (..., D): them, their lengths, and 1.

    A centre holds the list's mean vector, what its best score above the mean for a user of length 1, and its mean bias.
    """
    length = np.sqrt((users * users).sum(-1, keepdims=True))
    return np.concatenate([users, length, np.ones_like(length)], -1)


def _read_probes(bundle: Bundle) -> list[int]:
    """Return how many lists a search looks into for each k of ``MIN_RECALL``. Raises BundleError."""
    index = bundle.manifest.get("index")
    found: list[Any] = [
        index.get(f"probes@{k}") if isinstance(index, dict) else None for k in MIN_RECALL
    ]
    if not all(type(probes) is int and 0 < probes <= bundle.shape.candidates for probes in found):
        raise BundleError(
            f"{bundle.path / MANIFEST} does not say how many lists to look into (index); {REMEDY}"
        )
    return found
