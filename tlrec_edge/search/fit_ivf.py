"""Fit the lists of a large catalogue (see ``lists``): clusters of item vectors, and how many must be looked into."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.item_vectors import Vectors
from tlrec_edge.search.ivf import LONGEST, RECALL, asked_of

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.intp]

MANY = 200_000
"""Candidates beyond which they stand in lists, so that a search may look into the likeliest alone."""
_LISTS, _ROUNDS, _TRAIN = 4, 8, 32
"""Lists for the square root of the candidates; rounds of Lloyd's algorithm on so many candidates a list."""
_SPREAD = 2.0
"""A list is looked into for its mean score and so many standard deviations: a fifth fewer lists than for its mean."""
_CHUNK, _POINTS, _SAMPLE = 1 << 15, 2048, 256


class Listed(NamedTuple):
    """The candidates list by list, ``order`` (C,), the arrays of the lists, and what the manifest says of them."""

    order: Places
    arrays: Mapping[str, NDArray[Any]]
    card: Mapping[str, Any]


def fit_lists(vectors: Vectors, bias: Floats, users: Doubles) -> Listed:
    """Cluster candidates by vector and bias (C,) so that users (u, D) find their best in few lists."""
    rng = np.random.default_rng(0)
    users = users[rng.permutation(len(users))[:_SAMPLE]]
    # A step of the bias moves a score as far as one along an axis of the vectors moves a usual user's.
    weight = np.float32(1.0 / max(math.sqrt(float((users**2).mean())), 1e-30))
    count = len(bias)

    def points() -> Iterator[tuple[slice, Floats]]:
        for start in range(0, count, _CHUNK):
            at = slice(start, min(count, start + _CHUNK))
            yield at, np.concatenate([vectors(at.start, at.stop), bias[at, None] * weight], 1).astype(np.float32)

    lists = _LISTS * math.isqrt(count)
    some = rng.random(count) < _TRAIN * lists / count
    centres = _cluster(np.concatenate([part[some[at]] for at, part in points()]), lists, rng)
    label = np.concatenate([_nearest(part, centres) for _, part in points()])
    _, label = np.unique(label, return_inverse=True)
    held = np.bincount(label)
    mean = sum((_sums(part, label[at], len(held)) for at, part in points()), np.zeros((len(held), centres.shape[1])))
    mean /= held[:, None]
    mean[:, -1] /= weight
    spread = _SPREAD * _spread(vectors, label, mean[:, :-1], users)
    centres = np.concatenate([mean[:, :-1], spread[:, None], mean[:, -1:]], 1).astype(np.float32)
    likely = asked_of(users) @ centres.T
    rank = np.empty(likely.shape, np.intp)
    np.put_along_axis(rank, np.argsort(-likely, 1), np.arange(len(held))[None], 1)
    found = np.take_along_axis(rank, label[_best_of(vectors, bias, users)], 1)  # lists before the one that holds it
    probes, most = dict.fromkeys(RECALL, 0), 0
    for k, share in RECALL.items():
        probes[k] = most = max(most, _needed(found[:, :k], share))
    recall = {f"recall@{k}": round(float((found[:, :k] < probes[k]).mean()), 4) for k in RECALL}
    arrays: dict[str, NDArray[Any]] = {
        "list_starts": np.concatenate([[0], held.cumsum()]).astype(np.int64),
        "list_centres": centres,
    }
    at = {f"probes@{k}": count for k, count in probes.items()}
    card = {"lists": len(held), **at, **recall, "users": len(users)}
    return Listed(np.argsort(label, kind="stable"), arrays, card)


def _spread(vectors: Vectors, label: Places, mean: Doubles, users: Doubles) -> Doubles:
    """Return the standard deviation of the scores within each list, (L,), for a usual user of length 1."""
    value, axes = np.linalg.eigh(users.T @ users / len(users))
    root = axes * np.sqrt(np.maximum(value, 0.0))
    square = np.zeros(len(mean))
    for start in range(0, len(label), _CHUNK):
        own = label[start : start + _CHUNK]
        seen = (vectors(start, start + len(own)) - mean[own]) @ root
        square += np.bincount(own, (seen**2).sum(1), len(mean))
    variance: Doubles = square / np.bincount(label) / max(float(value.sum()), 1e-30)
    return np.sqrt(variance)


def _best_of(vectors: Vectors, bias: Floats, users: Doubles) -> Places:
    """Return each user's LONGEST best candidates, best first, (u, LONGEST)."""
    best = np.full((len(users), LONGEST), -np.inf)
    names = np.zeros((len(users), LONGEST), np.intp)
    for start in range(0, len(bias), _CHUNK):
        part = vectors(start, min(len(bias), start + _CHUNK))
        own = np.arange(start, start + len(part))
        scores = np.concatenate([best, users @ part.T + bias[own]], 1)
        found = np.concatenate([names, np.broadcast_to(own, (len(users), len(part)))], 1)
        top = np.argpartition(-scores, LONGEST - 1, 1)[:, :LONGEST]
        best, names = np.take_along_axis(scores, top, 1), np.take_along_axis(found, top, 1)
    return np.take_along_axis(names, np.argsort(-best, 1), 1)


def _needed(found: Places, share: float) -> int:
    """Return how many lists hold a share of what each user is to be found (u, k), and a standard error more."""
    for count in range(1, int(found.max()) + 1):
        held = (found < count).mean(1)
        if held.mean() - held.std() / math.sqrt(len(held)) >= share:
            return count
    return int(found.max()) + 1


def _cluster(some: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return centres (count, D) by Lloyd's algorithm."""
    centres = some[rng.permutation(len(some))[:count]].copy()
    for _ in range(_ROUNDS):
        label = _nearest(some, centres)
        held = np.bincount(label, minlength=len(centres))
        total = _sums(some, label, len(centres))
        centres[held > 0] = (total[held > 0] / held[held > 0, None]).astype(np.float32)
    return centres


def _sums(points: Floats, label: Places, count: int) -> Doubles:
    return np.stack([np.bincount(label, column, count) for column in points.T], 1)


def _nearest(points: Floats, centres: Floats) -> Places:
    half = (centres**2).sum(1) / 2
    parts = (points[at : at + _POINTS] for at in range(0, len(points), _POINTS))
    return np.concatenate([np.argmax(part @ centres.T - half, 1) for part in parts])
