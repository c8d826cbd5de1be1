"""Heads in lists of alike items: an inverted file, whose recall is measured when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Heads = NDArray[np.int8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.intp]

RECALL = {10: 0.995, 100: 0.98}
"""Recall at k that a search must reach, over users the lists were not made for."""
_EACH = {k: (1 + share) / 2 for k, share in RECALL.items()}
"""What of it the lists must hold, and the heads that are looked at: each may miss half of what the search may."""
LONGEST = max(RECALL)
"""The longest answer that recall is measured for; a longer one is exact."""
_ROUNDS, _TRAIN, _CHUNK = 8, 40, 1 << 15


class Lists(NamedTuple):
    """The candidates list by list (``list_order``), where lists start, their mean heads; and what the manifest says."""

    arrays: Mapping[str, NDArray[Any]]
    card: Mapping[str, Any]


def make_lists(rows: Heads, step: Doubles, entries: Doubles, best: Places) -> Lists:
    """Cluster heads (C, h + 2) into about sqrt(C) lists; find how many to look into, and at how many of their heads.

    ``entries`` (u, h + 2) are what users multiply heads with, ``best`` (u, LONGEST) their best candidates.
    """
    label = _clusters(rows, step, max(1, math.isqrt(len(rows))))
    count = int(label.max()) + 1
    order = np.argsort(label, kind="stable").astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=count))]).astype(np.int64)
    size = np.maximum(np.diff(starts), 1)[:, None]
    total = np.stack([np.bincount(label, column, count) for column in rows.T], 1)
    centres = (total / size).astype(np.float32)
    likely = entries.astype(np.float32)
    likely[:, -1] = 0.0  # as a search does
    rank = np.empty((len(entries), count), np.intp)
    np.put_along_axis(rank, np.argsort(-(likely @ centres.T), 1), np.arange(count)[None], 1)
    lists = np.take_along_axis(rank, label[best], 1)  # how many lists come before the one that holds it
    above = _above(rows, likely, best)
    probes = max(_needed(lists[:, :k], share) for k, share in _EACH.items())
    depth = max(_needed(above[:, :k], share) for k, share in _EACH.items())
    # What stands above a head in all lists may not be among those looked into: it is found at least as often.
    found = {k: (lists[:, :k] < probes) & (above[:, :k] < depth) for k in RECALL}
    recall = {f"recall@{k}": round(float(hit.mean()), 4) for k, hit in found.items()}
    arrays: dict[str, NDArray[Any]] = {"list_order": order, "list_starts": starts, "list_centres": centres}
    return Lists(arrays, {"lists": count, "probes": probes, "depth": depth, **recall, "users": len(entries)})


def _above(rows: Heads, entries: Floats, best: Places) -> Places:
    """Return how many heads have a larger product with a user's entries than each of the user's best, (u, LONGEST)."""
    own = np.einsum("ukh,uh->uk", rows[best].astype(np.float32), entries)
    found = np.zeros(best.shape, np.intp)
    for at in range(0, len(rows), _CHUNK):
        products = np.sort(entries @ rows[at : at + _CHUNK].T.astype(np.float32), 1)
        for user, row in enumerate(products):
            found[user] += len(row) - row.searchsorted(own[user], "right")
    return found


def _needed(found: Places, share: float) -> int:
    """Return how many must be looked at for a share of what is to be found."""
    rising = np.sort(found, axis=None)
    return int(rising[math.ceil(share * len(rising)) - 1]) + 1


def _clusters(rows: Heads, step: Doubles, count: int) -> Places:
    """Return the cluster of each head by Lloyd's algorithm on a sample (C,). The norm of the rest says nothing here."""
    rng = np.random.default_rng(0)
    scale = step[:-1].astype(np.float32)
    some = rows[rng.choice(len(rows), min(len(rows), _TRAIN * count), replace=False), :-1] * scale
    centres = some[:count].copy()
    for _ in range(_ROUNDS):
        label = _nearest(some, centres)
        held = np.bincount(label, minlength=count)
        total = np.stack([np.bincount(label, column, count) for column in some.T], 1)
        centres[held > 0] = (total[held > 0] / held[held > 0, None]).astype(np.float32)
    parts = (rows[at : at + _CHUNK, :-1] * scale for at in range(0, len(rows), _CHUNK))
    _, label = np.unique(np.concatenate([_nearest(part, centres) for part in parts]), return_inverse=True)
    return label


def _nearest(points: Floats, centres: Floats) -> Places:
    norm = (centres**2).sum(1) / 2
    parts = (points[at : at + 4096] for at in range(0, len(points), 4096))
    return np.concatenate([np.argmax(part @ centres.T - norm, 1) for part in parts])
