"""Fit an inverted file (see ``ivf``): clusters of item vectors, and how many of them to probe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.item_vectors import Vectors
from tlrec_edge.search.ivf import DEVIATIONS, MAX_K, MIN_RECALL, augment_queries
from tlrec_edge.types import Doubles, Floats, Indices

IVF_MIN_CANDIDATES = 200_000
"""Number of candidates above which a bundle gets an inverted file."""
_CLUSTERS_PER_ROOT = 4
"""Clusters per square root of the number of candidates."""
_ITERATIONS, _POINTS_PER_CLUSTER = 8, 32
"""Rounds of Lloyd's algorithm, and points per cluster in the sample that it runs on."""
_CHUNK, _ASSIGN_BATCH, _SAMPLE_USERS = 1 << 15, 2048, 256


class FittedIvf(NamedTuple):
    """An inverted file, ready to be written."""

    order: Indices
    """The candidates cluster by cluster, (C,)."""
    arrays: Mapping[str, NDArray[Any]]
    """Arrays of the bundle."""
    card: Mapping[str, Any]
    """The manifest's ``index``: clusters, probes and recall."""


def fit_ivf(vectors: Vectors, bias: Floats, users: Doubles) -> FittedIvf:
    """Cluster candidates by vector and bias (C,), and measure the probes that user vectors need.

    The probes are fitted to ``users`` (u, D): measure recall for a report on other users.
    """
    rng = np.random.default_rng(0)
    users = users[rng.permutation(len(users))[:_SAMPLE_USERS]]
    points = _Points(vectors, bias, users)
    labels = _assign(points, rng)
    sizes = np.bincount(labels)
    mean = points.cluster_means(labels, sizes)
    deviations = DEVIATIONS * _score_deviations(vectors, labels, mean[:, :-1], users)
    columns = [mean[:, :-1], deviations[:, None], mean[:, -1:]]
    centroids = np.concatenate(columns, 1).astype(np.float32)
    needed = _probes_needed(centroids, labels[_exact_top_k(vectors, bias, users)], users)
    card: dict[str, Any] = {"lists": len(sizes)}
    probes = _probes_by_k(needed)
    card |= {f"probes@{k}": count for k, count in probes.items()}
    for k, count in probes.items():
        card[f"recall@{k}"] = round(float((needed[:, :k] < count).mean()), 4)
    card["users"] = len(users)
    arrays: dict[str, NDArray[Any]] = {
        "list_starts": np.concatenate([[0], sizes.cumsum()]).astype(np.int64),
        "list_centres": centroids,
    }
    return FittedIvf(np.argsort(labels, kind="stable"), arrays, card)


class _Points:
    """What is clustered: each candidate's vector and weighted bias, (D + 1,), read in chunks."""

    def __init__(self, vectors: Vectors, bias: Floats, users: Doubles) -> None:
        self._vectors, self._bias = vectors, bias
        self.width = users.shape[1] + 1
        # Distances compare coordinates, scores multiply them with the user's: weigh the bias so
        # that a difference of 1 in it matters as much as one of the same effect in the vectors.
        self.bias_weight = np.float32(1.0 / max(math.sqrt(float((users**2).mean())), 1e-30))

    def __len__(self) -> int:
        return len(self._bias)

    def __iter__(self) -> Iterator[tuple[slice, Floats]]:
        for start in range(0, len(self), _CHUNK):
            at = slice(start, min(len(self), start + _CHUNK))
            columns = [self._vectors(at.start, at.stop), self._bias[at, None] * self.bias_weight]
            yield at, np.concatenate(columns, 1).astype(np.float32)

    def cluster_means(self, labels: Indices, sizes: Indices) -> Doubles:
        """Return the mean vector and the mean bias of each cluster, (L, D + 1)."""
        sums = np.zeros((len(sizes), self.width))
        for at, part in self:
            sums += _cluster_sums(part, labels[at], len(sizes))
        mean: Doubles = sums / sizes[:, None]
        mean[:, -1] /= self.bias_weight
        return mean


def _assign(points: _Points, rng: np.random.Generator) -> Indices:
    """Return the cluster of each candidate, (C,); clusters are numbered without gaps."""
    count = len(points)
    cluster_count = _CLUSTERS_PER_ROOT * math.isqrt(count)
    sampled = rng.random(count) < _POINTS_PER_CLUSTER * cluster_count / count
    sample = np.concatenate([part[sampled[at]] for at, part in points])
    centroids = _cluster(sample, cluster_count, rng)
    labels = np.concatenate([_nearest_centroids(part, centroids) for _, part in points])
    return np.unique(labels, return_inverse=True)[1]


def _probes_needed(centroids: Floats, clusters: Indices, users: Doubles) -> Indices:
    """Return how many clusters rank before the cluster of each best candidate, (u, MAX_K).

    ``clusters`` (u, MAX_K) holds the clusters of each user's best candidates.
    """
    scores = augment_queries(users) @ centroids.T
    rank = np.empty(scores.shape, np.intp)
    np.put_along_axis(rank, np.argsort(-scores, 1), np.arange(len(centroids))[None], 1)
    return np.take_along_axis(rank, clusters, 1)


def _probes_by_k(needed: Indices) -> dict[int, int]:
    """Return the number of probes for each k of ``MIN_RECALL``; it never falls with k."""
    probes, largest = {}, 0
    for k, target in MIN_RECALL.items():
        largest = max(largest, _probes_for_recall(needed[:, :k], target))
        probes[k] = largest
    return probes


def _probes_for_recall(needed: Indices, target: float) -> int:
    """Return the fewest probes whose mean recall is a standard error above ``target``."""
    for count in range(1, int(needed.max()) + 1):
        recall = (needed < count).mean(1)
        if recall.mean() - recall.std() / math.sqrt(len(recall)) >= target:
            return count
    return int(needed.max()) + 1


def _score_deviations(vectors: Vectors, labels: Indices, mean: Doubles, users: Doubles) -> Doubles:
    """Return the standard deviation of scores in each cluster, (L,), for a user vector of length 1.

    It depends on the direction of the user vector, so the variance is averaged over the sampled
    users, by the root of their second moment.
    """
    eigenvalues, axes = np.linalg.eigh(users.T @ users / len(users))
    root = axes * np.sqrt(np.maximum(eigenvalues, 0.0))
    square = np.zeros(len(mean))
    for start in range(0, len(labels), _CHUNK):
        chunk = labels[start : start + _CHUNK]
        projected = (vectors(start, start + len(chunk)) - mean[chunk]) @ root
        square += np.bincount(chunk, (projected**2).sum(1), len(mean))
    variance: Doubles = square / np.bincount(labels) / max(float(eigenvalues.sum()), 1e-30)
    return np.sqrt(variance)


def _exact_top_k(vectors: Vectors, bias: Floats, users: Doubles) -> Indices:
    """Return each user's MAX_K best candidates, best first, (u, MAX_K)."""
    best = np.full((len(users), MAX_K), -np.inf)
    rows = np.zeros((len(users), MAX_K), np.intp)
    for start in range(0, len(bias), _CHUNK):
        part = vectors(start, min(len(bias), start + _CHUNK))
        chunk = np.arange(start, start + len(part))
        scores = np.concatenate([best, users @ part.T + bias[chunk]], 1)
        candidates = np.broadcast_to(chunk, (len(users), len(part)))
        candidates = np.concatenate([rows, candidates], 1)
        top = np.argpartition(-scores, MAX_K - 1, 1)[:, :MAX_K]
        best, rows = np.take_along_axis(scores, top, 1), np.take_along_axis(candidates, top, 1)
    return np.take_along_axis(rows, np.argsort(-best, 1), 1)


def _cluster(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return the centroids (count, D) that Lloyd's algorithm finds."""
    centroids = points[rng.permutation(len(points))[:count]].copy()
    for _ in range(_ITERATIONS):
        labels = _nearest_centroids(points, centroids)
        sizes = np.bincount(labels, minlength=len(centroids))
        sums = _cluster_sums(points, labels, len(centroids))
        filled = sizes > 0
        centroids[filled] = (sums[filled] / sizes[filled, None]).astype(np.float32)
    return centroids


def _cluster_sums(points: Floats, labels: Indices, count: int) -> Doubles:
    return np.stack([np.bincount(labels, column, count) for column in points.T], 1)


def _nearest_centroids(points: Floats, centroids: Floats) -> Indices:
    # |p - c|^2 = |p|^2 - 2 (p . c - |c|^2 / 2), and |p|^2 is the same for all centroids c.
    half = (centroids**2).sum(1) / 2
    parts = (points[at : at + _ASSIGN_BATCH] for at in range(0, len(points), _ASSIGN_BATCH))
    return np.concatenate([np.argmax(part @ centroids.T - half, 1) for part in parts])
