"""Approximate top-k by an inverted file (IVF): score only the candidates of the best clusters.

Candidates are stored cluster by cluster. A search compares the user with the centroids, probes the
most promising clusters, and adds every candidate with a positive item-item contribution, because no
centroid can predict those. The manifest's ``index`` states how many clusters are probed, and the
recall that this gives.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import MANIFEST, REMEDY
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.core.topk import absent, lower_bound, top_k_of
from tlrec_edge.errors import BundleError
from tlrec_edge.search.index import ScoreFunction, TopK
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices, Longs

MIN_RECALL = {10: 0.99, 100: 0.97}
"""Recall at k that a search must reach, for users that the clusters were not fitted to."""
MAX_K = max(MIN_RECALL)
"""The largest k that recall is measured for; a larger one is answered exactly."""
DEVIATIONS = 2.0
"""A cluster is ranked by its mean score plus this many standard deviations, because its best items
matter. This needs a fifth fewer probes than ranking by the mean."""
MAX_PROBED_FRACTION = 1 / 16
"""Share of the clusters beyond which the prefix bound answers faster, and exactly (measured with
250,000 candidates)."""
_MAX_PROBED_FRACTION_ALONE = 1 / 2
"""The same share for a bundle without a prefix bound, in which a full scan is the alternative."""


class InvertedFile:
    """The clusters of one bundle. Safe to use from many threads."""

    def __init__(self, bundle: Bundle) -> None:
        self._starts: Longs = bundle.array("list_starts")
        self._centroids: Floats = bundle.array("list_centres")
        if (self._starts[1:] <= self._starts[:-1]).any():
            raise BundleError(f"{bundle.path / 'list_starts.npy'} is not ascending; {REMEDY}")
        has_prefix_bound = bundle.has("head_columns.npy")
        fraction = MAX_PROBED_FRACTION if has_prefix_bound else _MAX_PROBED_FRACTION_ALONE
        self._max_probes = math.floor(len(self._centroids) * fraction)
        # Recall was measured for two values of k; between them, interpolate.
        measured = _read_probes(bundle, len(self._centroids))
        probes = np.interp(range(MAX_K + 1), list(MIN_RECALL), measured)
        self._probes: list[int] = np.ceil(probes).astype(int).tolist()

    def search(
        self, state: UserState, k: int, excluded: Indices, score: ScoreFunction
    ) -> TopK | None:
        """Return the k best candidates of the most promising clusters and of the item-item part.

        Return None if that would probe too many clusters or leave fewer than k candidates, and for
        a user without a vector: recall was not measured for those, and the vectors are all that
        centroids know.
        """
        user = np.concatenate(
            [state.deep * state.deep_scale, state.interest * state.interest_scale]
        )
        if not user.any():
            return None
        probes = self._probe_count(user, k, excluded)
        if probes > self._max_probes:
            return None
        positions, scores = self._probe(user, probes, k + len(excluded), score)
        boosted = state.wide.positive_columns
        if len(boosted):
            boosted = boosted[absent(boosted, positions)]
            positions = np.concatenate([positions, boosted])
            scores = np.concatenate([scores, score(boosted)])
        best = TopK(*top_k_of(positions, scores, k, excluded))
        return best if len(best.positions) == k else None

    def _probe_count(self, user: Floats, k: int, excluded: Indices) -> int:
        """Return how many clusters to probe, so that k candidates remain without the excluded ones.

        An excluded candidate takes a place of the answer, so it counts as one more result.
        """
        results = k + len(excluded)
        if results <= MAX_K:
            return self._probes[results]
        # Most of a long exclusion list is in clusters that would not be probed: count the others.
        clusters = self._starts.searchsorted(excluded, "right") - 1
        probed = self._best_clusters(user, self._probes[MAX_K])
        results = max(MAX_K, k + int(np.isin(clusters, probed).sum()))
        # Nothing was measured beyond MAX_K: assume that probes grow in proportion.
        return math.ceil(self._probes[MAX_K] * results / MAX_K)

    def _probe(
        self, user: Floats, probes: int, k: int, score: ScoreFunction
    ) -> tuple[Indices, Floats]:
        """Score the ``probes`` best clusters; return at least their k best rows, ascending."""
        clusters = self._best_clusters(user, probes)
        ranges = RowRanges(self._starts.take(clusters), self._starts.take(clusters + 1))
        scores = score(ranges)
        at = (scores >= lower_bound(scores, k)).nonzero()[0]
        return ranges.to_rows(at), scores.take(at)

    def _best_clusters(self, user: Floats, count: int) -> Indices:
        """Return the numbers of the ``count`` most promising clusters, ascending."""
        total = len(self._centroids)
        if count >= total:
            return np.arange(total)
        scores = self._centroids.dot(augment_queries(user))
        return np.sort(scores.argpartition(total - count)[total - count :])


def augment_queries(users: NDArray[Any]) -> NDArray[Any]:
    """Append length and 1 to user vectors (..., D), to multiply them with centroids (L, D + 2).

    A centroid holds a cluster's mean vector, the spread of its scores for a user vector of length
    1, and its mean bias. The product estimates the score of the cluster's best items.
    """
    length = np.sqrt((users * users).sum(-1, keepdims=True))
    return np.concatenate([users, length, np.ones_like(length)], -1)


def _read_probes(bundle: Bundle, clusters: int) -> list[int]:
    """Return the manifest's number of probes for each k of ``MIN_RECALL``.

    Raises BundleError if the manifest's ``index`` is not valid.
    """
    index = bundle.manifest.get("index")
    entries = index if isinstance(index, dict) else {}
    path = bundle.path / MANIFEST
    found: list[Any] = [entries.get(f"probes@{k}") for k in MIN_RECALL]
    valid = all(type(probes) is int and 0 < probes <= clusters for probes in found)
    if not valid or found != sorted(found):
        raise BundleError(f"{path} has no valid number of clusters to probe (index); {REMEDY}")
    count = entries.get("lists")
    if type(count) is not int or count != clusters:
        raise BundleError(
            f"{path} says {count!r:.40} clusters (index), "
            f"but list_starts.npy has {clusters}; {REMEDY}"
        )
    for recall in (entries.get(f"recall@{k}", 1.0) for k in MIN_RECALL):
        if type(recall) not in (int, float) or not 0 < recall <= 1:
            raise BundleError(f"{path} has a recall of {recall!r:.40} (index); {REMEDY}")
    return found
