"""Fit an IVF index (see ``ivf``): clusters of item vectors, and how many to probe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.item_vectors import Vectors
from tlrec_edge.search.ivf import MAX_K, MIN_RECALL, augment_queries
from tlrec_edge.types import Doubles, Floats, Indices

IVF_MIN_CANDIDATES = 200_000
"""Candidates beyond which they stand in lists, so that a search may look into the likeliest alone."""
_CLUSTERS_PER_ROOT, _ITERATIONS, _POINTS_PER_CLUSTER = 4, 8, 32
"""Lists for the square root of the candidates; rounds of Lloyd's algorithm on so many candidates a list."""
_DEVIATIONS = 2.0
"""A list is looked into for its mean score and so many standard deviations: a fifth fewer lists than for its mean."""
_CHUNK, _ASSIGN_BATCH, _SAMPLE_USERS = 1 << 15, 2048, 256


class FittedIvf(NamedTuple):
    """The candidates list by list, ``order`` (C,), the arrays of the lists, and what the manifest says of them."""

    order: Indices
    arrays: Mapping[str, NDArray[Any]]
    card: Mapping[str, Any]


def fit_ivf(vectors: Vectors, bias: Floats, users: Doubles) -> FittedIvf:
    """Cluster candidates by vector and bias (C,) so that users (u, D) find their best in few lists."""
    rng = np.random.default_rng(0)
    users = users[rng.permutation(len(users))[:_SAMPLE_USERS]]
    # A step of the bias moves a score as far as one along an axis of the vectors moves a usual user's.
    weight = np.float32(1.0 / max(math.sqrt(float((users**2).mean())), 1e-30))
    count = len(bias)

    def points() -> Iterator[tuple[slice, Floats]]:
        for start in range(0, count, _CHUNK):
            at = slice(start, min(count, start + _CHUNK))
            yield (
                at,
                np.concatenate([vectors(at.start, at.stop), bias[at, None] * weight], 1).astype(
                    np.float32
                ),
            )

    cluster_count = _CLUSTERS_PER_ROOT * math.isqrt(count)
    sampled = rng.random(count) < _POINTS_PER_CLUSTER * cluster_count / count
    centroids = _cluster(
        np.concatenate([part[sampled[at]] for at, part in points()]), cluster_count, rng
    )
    labels = np.concatenate([_nearest_centroids(part, centroids) for _, part in points()])
    _, labels = np.unique(labels, return_inverse=True)
    sizes = np.bincount(labels)
    mean = sum(
        (_cluster_sums(part, labels[at], len(sizes)) for at, part in points()),
        np.zeros((len(sizes), centroids.shape[1])),
    )
    mean /= sizes[:, None]
    mean[:, -1] /= weight
    deviations = _DEVIATIONS * _score_deviations(vectors, labels, mean[:, :-1], users)
    centroids = np.concatenate([mean[:, :-1], deviations[:, None], mean[:, -1:]], 1).astype(
        np.float32
    )
    cluster_scores = augment_queries(users) @ centroids.T
    rank = np.empty(cluster_scores.shape, np.intp)
    np.put_along_axis(rank, np.argsort(-cluster_scores, 1), np.arange(len(sizes))[None], 1)
    found = np.take_along_axis(
        rank, labels[_exact_top_k(vectors, bias, users)], 1
    )  # lists before the one that holds it
    probes, largest = dict.fromkeys(MIN_RECALL, 0), 0
    for k, target in MIN_RECALL.items():
        probes[k] = largest = max(largest, _probes_for_recall(found[:, :k], target))
    recall = {f"recall@{k}": round(float((found[:, :k] < probes[k]).mean()), 4) for k in MIN_RECALL}
    arrays: dict[str, NDArray[Any]] = {
        "list_starts": np.concatenate([[0], sizes.cumsum()]).astype(np.int64),
        "list_centres": centroids,
    }
    at = {f"probes@{k}": count for k, count in probes.items()}
    card = {"lists": len(sizes), **at, **recall, "users": len(users)}
    return FittedIvf(np.argsort(labels, kind="stable"), arrays, card)


def _score_deviations(vectors: Vectors, labels: Indices, mean: Doubles, users: Doubles) -> Doubles:
    """Return the standard deviation of the scores within each list, (L,), for a usual user of length 1."""
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
    """Return each user's LONGEST best candidates, best first, (u, LONGEST)."""
    best = np.full((len(users), MAX_K), -np.inf)
    rows = np.zeros((len(users), MAX_K), np.intp)
    for start in range(0, len(bias), _CHUNK):
        part = vectors(start, min(len(bias), start + _CHUNK))
        chunk = np.arange(start, start + len(part))
        scores = np.concatenate([best, users @ part.T + bias[chunk]], 1)
        found = np.concatenate([rows, np.broadcast_to(chunk, (len(users), len(part)))], 1)
        top = np.argpartition(-scores, MAX_K - 1, 1)[:, :MAX_K]
        best, rows = np.take_along_axis(scores, top, 1), np.take_along_axis(found, top, 1)
    return np.take_along_axis(rows, np.argsort(-best, 1), 1)


def _probes_for_recall(found: Indices, target: float) -> int:
    """Return how many lists hold a share of what each user is to be found (u, k), and a standard error more."""
    for count in range(1, int(found.max()) + 1):
        recall = (found < count).mean(1)
        if recall.mean() - recall.std() / math.sqrt(len(recall)) >= target:
            return count
    return int(found.max()) + 1


def _cluster(sampled: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return centres (count, D) by Lloyd's algorithm."""
    centroids = sampled[rng.permutation(len(sampled))[:count]].copy()
    for _ in range(_ITERATIONS):
        labels = _nearest_centroids(sampled, centroids)
        sizes = np.bincount(labels, minlength=len(centroids))
        total = _cluster_sums(sampled, labels, len(centroids))
        centroids[sizes > 0] = (total[sizes > 0] / sizes[sizes > 0, None]).astype(np.float32)
    return centroids


def _cluster_sums(points: Floats, labels: Indices, count: int) -> Doubles:
    return np.stack([np.bincount(labels, column, count) for column in points.T], 1)


def _nearest_centroids(points: Floats, centroids: Floats) -> Indices:
    half = (centroids**2).sum(1) / 2
    parts = (points[at : at + _ASSIGN_BATCH] for at in range(0, len(points), _ASSIGN_BATCH))
    return np.concatenate([np.argmax(part @ centroids.T - half, 1) for part in parts])
