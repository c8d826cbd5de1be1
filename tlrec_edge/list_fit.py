"""Fit the lists of a large catalogue (see ``lists``): clusters of item vectors, and how many must be looked into."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.lists import LONGEST, RECALL

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.intp]
Vectors = Callable[[int, int], Doubles]
"""The item vectors of candidates start..end-1, (n, D)."""

MANY = 200_000
"""Candidates beyond which they stand in lists, so that a search may look into the likeliest alone."""
_LISTS, _ROUNDS, _TRAIN = 2, 8, 32
"""Lists for the square root of the candidates; rounds of Lloyd's algorithm on so many candidates a list."""
_BIAS = 4.0
"""Weight of the bias beside the vectors, over the users' length: with 1 it would outweigh what items are like."""
_CHUNK, _POINTS, _SAMPLE = 1 << 15, 2048, 128


class Listed(NamedTuple):
    """The candidates list by list, ``order`` (C,), the arrays of the lists, and what the manifest says of them."""

    order: Places
    arrays: Mapping[str, NDArray[Any]]
    card: Mapping[str, Any]


def fit_lists(vectors: Vectors, bias: Floats, users: Doubles) -> Listed:
    """Cluster candidates by vector and bias (C,) so that users (u, D) find their best in few lists."""
    rng = np.random.default_rng(0)
    users = users[rng.permutation(len(users))[:_SAMPLE]]
    weight = np.float32(_BIAS / max(math.sqrt(float((users**2).sum(1).mean())), 1e-30))
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
    likely = users @ mean[:, :-1].T + mean[:, -1]
    rank = np.empty(likely.shape, np.intp)
    np.put_along_axis(rank, np.argsort(-likely, 1), np.arange(len(held))[None], 1)
    found = np.take_along_axis(rank, label[_best_of(vectors, bias, users)], 1)  # lists before the one that holds it
    probes = max(_needed(found[:, :k], share) for k, share in RECALL.items())
    recall = {f"recall@{k}": round(float((found[:, :k] < probes).mean()), 4) for k in RECALL}
    arrays: dict[str, NDArray[Any]] = {
        "list_starts": np.concatenate([[0], held.cumsum()]).astype(np.int64),
        "list_centres": mean.astype(np.float32),
    }
    card = {"lists": len(held), "probes": probes, **recall, "users": len(users)}
    return Listed(np.argsort(label, kind="stable"), arrays, card)


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
    """Return how many lists hold a share of what is to be found."""
    rising = np.sort(found, axis=None)
    return int(rising[math.ceil(share * len(rising)) - 1]) + 1


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
