"""Product quantization of a bundle's candidates, and exact top-k by it.

Vectors are turned so that users see all axes alike and items spread along them, and the axes are dealt to subspaces so
that each holds a like share of the spread (optimized product quantization, Ge et al., CVPR 2013, its parametric form).
In each subspace an item is the nearest of 256 centroids, one byte. Two more hold its bias, and the length of what the
centroids leave out, rounded up. With x the user, c the item's centroids and r the rest, x . z = x . c + x . r, and
Cauchy and Schwarz bound the error: |x . r| <= |x| |r|. So a scan says which items can be among the k best; those alone
are scored from their whole rows, which stay on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge import Recommender
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.core.topk import top_k
from tlrec_edge.search.user_state import UserState

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.intp]
Read = Callable[[int, int], Doubles]
"""The item vectors of candidates start..end-1, (n, D)."""

CENTROIDS = 256
_CHUNK, _BLOCK, _SAMPLE, _ROUNDS = 1 << 15, 1 << 16, 1 << 15, 12
_ROUNDING = 8e-6
"""Share of the largest possible score that float32 arithmetic may be off by; dozens of times what it is."""


class Codes(NamedTuple):
    """``turn`` (M * width, D) takes a user to the axes of the M subspaces, ``centroids`` are (M, 256, width).

    ``pairs`` (M / 2 + 1, C): two bytes an entry, those of subspaces 0 and 1, 2 and 3, ..., and of bias and rest. The
    bias is ``bias[0]`` + ``bias[1]`` times its byte, at most half a step off; the rest is no longer than ``step`` times
    its byte. ``reach``: the longest candidate vector.
    """

    turn: Doubles
    centroids: Floats
    pairs: NDArray[np.uint16]
    bias: tuple[float, float]
    step: float
    reach: float

    @property
    def bytes_an_item(self) -> int:
        return 2 * len(self.pairs)

    def tables(self, user: Doubles, bounds: bool) -> tuple[Floats, float]:
        """Return what two bytes add to a user's (D,) scores, (M / 2 + 1, 256 * 256), and what no score exceeds that by.

        With ``bounds`` the last byte adds the most that the rest can; without, nothing, and scores may be off by that.
        """
        turned = self.turn @ user  # (M * width,)
        single = np.einsum(
            "mcw,mw->mc", self.centroids, turned.reshape(len(self.centroids), -1)
        )  # (M, 256)
        byte = np.arange(CENTROIDS)
        rest = byte * (self.step * float(np.linalg.norm(turned)) if bounds else 0.0)
        single = np.concatenate([single, [self.bias[0] + self.bias[1] * byte, rest]])
        slack = _ROUNDING * (
            float(np.abs(single).max(1).sum()) + float(np.linalg.norm(user)) * self.reach
        )
        slack += self.bias[1] / 2
        double = (
            single[::2, None, :] + single[1::2, :, None]
        )  # the first of two bytes is the low one
        return double.reshape(len(self.pairs), -1).astype(np.float32), slack

    def scan(self, tables: Floats) -> Floats:
        """Return the sums of what each candidate's bytes add, (C,)."""
        out, part = np.empty(self.pairs.shape[1], np.float32), np.empty(_BLOCK, np.float32)
        for start in range(0, len(out), _BLOCK):
            codes, total = self.pairs[:, start : start + _BLOCK], out[start : start + _BLOCK]
            np.take(tables[0], codes[0], out=total, mode="clip")
            for table, code in zip(tables[1:], codes[1:], strict=True):
                total += np.take(table, code, out=part[: len(total)], mode="clip")
        return out


class Found(NamedTuple):
    """The best candidates, best first, their scores, and how many were scored whole."""

    places: Places
    scores: Floats
    whole: int


def exact_top(codes: Codes, rec: Recommender, state: UserState, k: int) -> Found:
    """Return the k best candidates, the same bit for bit as a scan of all whole rows gives."""
    tables, slack = codes.tables(user_vector(state), bounds=True)
    bounds = codes.scan(tables)
    slack += _lift(bounds, state)
    first = np.sort(top_k(bounds, 2 * k + 32))
    scores = rec.score(state, ItemRows(first))
    least = float(np.partition(scores, len(scores) - k)[len(scores) - k])
    left = np.flatnonzero(bounds >= np.float32(least - slack))
    scores = rec.score(state, ItemRows(left))
    best = top_k(scores, k)
    return Found(left[best], scores[best], len(left))


def likely_top(codes: Codes, rec: Recommender, state: UserState, k: int, whole: int) -> Found:
    """Return the k best of the ``whole`` candidates whose codes score best; with whole = k, in the codes' choice."""
    tables, _ = codes.tables(user_vector(state), bounds=False)
    estimates = codes.scan(tables)
    _lift(estimates, state)
    likely = np.sort(top_k(estimates, whole))
    scores = rec.score(state, ItemRows(likely))
    best = top_k(scores, k)
    return Found(likely[best], scores[best], whole)


def user_vector(state: UserState) -> Doubles:
    """Return what candidate vectors are multiplied with, (D,): deep block and block of taste."""
    parts = state.deep * float(state.deep_scale), state.interest * float(state.interest_scale)
    return np.concatenate(parts).astype(np.float64)


def _lift(scores: Floats, state: UserState) -> float:
    """Add what item-item weights do; return how far float32 may be off by that."""
    if not len(state.wide):
        return 0.0
    columns, lifts = state.wide.summed
    scores[columns] += lifts
    return _ROUNDING * float(np.abs(lifts).max(initial=0.0))


def fit(read: Read, bias: Floats, users: Doubles, subspaces: int, seed: int = 0) -> Codes:
    """Learn the codes of all candidates for users like some, (u, D); ``subspaces`` is even, a byte each.

    Raises ValueError for an odd number, and for more than D.
    """
    count = len(bias)
    if subspaces % 2 or not 1 <= subspaces <= users.shape[1]:
        raise ValueError(
            f"subspaces go in pairs, an even number of 2..{users.shape[1]}, not {subspaces}"
        )
    into, turn = _axes(read, count, users, subspaces)
    rng = np.random.default_rng(seed)

    def split(vectors: Doubles) -> Doubles:
        return (
            (vectors @ into).reshape(len(vectors), subspaces, -1).transpose(1, 0, 2)
        )  # (M, n, width)

    some = rng.choice(count, min(count, _SAMPLE), replace=False)
    sample = np.concatenate([read(at, at + 1) for at in np.sort(some).tolist()])
    centroids = np.stack([_means(part.astype(np.float32), rng) for part in split(sample)])
    codes, rest, reach = np.empty((subspaces + 2, count), np.uint8), np.empty(count), 0.0
    for at, vectors in _chunks(read, count):
        square = np.zeros(len(vectors))
        for m, part in enumerate(split(vectors)):
            codes[m, at] = _nearest(part.astype(np.float32), centroids[m])
            square += ((part - centroids[m].astype(np.float64)[codes[m, at]]) ** 2).sum(1)
        rest[at] = np.sqrt(square)
        reach = max(reach, float(np.linalg.norm(vectors, axis=1).max()))
    low, spread = float(bias.min()), max(float(np.ptp(bias)), 1e-30) / (CENTROIDS - 1)
    codes[-2] = np.rint((bias - low) / spread)
    step = max(float(rest.max()), 1e-30) / (CENTROIDS - 1)
    codes[-1] = np.minimum(np.ceil(rest / step), CENTROIDS - 1)
    pairs = codes[::2] + np.uint16(CENTROIDS) * codes[1::2]
    return Codes(turn, centroids, pairs, (low, spread * (1 + 1e-6)), step * (1 + 1e-9), reach)


def _axes(read: Read, count: int, users: Doubles, subspaces: int) -> tuple[Doubles, Doubles]:
    """Return what turns items, z @ into, (D, M * width), and users, turn @ x, (M * width, D).

    Axes are the main ones of the items as the users see them, who may also look elsewhere a little. They are dealt out
    by falling spread, each to the subspace with the smallest product so far; a place that is left stays 0.
    """
    d = users.shape[1]
    moment = users.T @ users / len(users)
    value, axes = np.linalg.eigh(moment + 0.1 * max(np.trace(moment) / d, 1e-30) * np.eye(d))
    root = axes * np.sqrt(value)
    total, square = np.zeros(d), np.zeros((d, d))
    for _, vectors in _chunks(read, count):
        seen = vectors @ root
        total += seen.sum(0)
        square += seen.T @ seen
    spread, main = np.linalg.eigh(square / count - np.outer(total, total) / count**2)
    weight = np.log(np.maximum(spread, spread[-1] * 1e-12) / max(spread[-1] * 1e-12, 1e-300))
    width = -(-d // subspaces)
    held: list[list[int]] = [[] for _ in range(subspaces)]
    for axis in range(d - 1, -1, -1):
        free = [part for part in held if len(part) < width]
        min(free, key=lambda part: sum(weight[part])).append(axis)
    into, turn = np.zeros((d, subspaces * width)), np.zeros((subspaces * width, d))
    for m, part in enumerate(held):
        place = m * width + np.arange(len(part))
        into[:, place] = root @ main[:, part]
        turn[place] = main[:, part].T @ (axes / np.sqrt(value)).T
    return into, turn


def _means(points: Floats, rng: np.random.Generator) -> Floats:
    """Return 256 centroids (256, width) by Lloyd's algorithm, from points drawn at random."""
    centroids = points[rng.choice(len(points), CENTROIDS, replace=len(points) < CENTROIDS)].copy()
    for _ in range(_ROUNDS):
        label = _nearest(points, centroids)
        held = np.bincount(label, minlength=CENTROIDS)
        total = np.stack([np.bincount(label, column, CENTROIDS) for column in points.T], 1)
        centroids[held > 0] = (total[held > 0] / held[held > 0, None]).astype(np.float32)
    return centroids


def _nearest(points: Floats, centroids: Floats) -> Places:
    norm = (centroids**2).sum(1) / 2
    parts = (points[at : at + 4096] for at in range(0, len(points), 4096))
    return np.concatenate([np.argmax(part @ centroids.T - norm, 1) for part in parts])


def _chunks(read: Read, count: int) -> Iterator[tuple[slice, Doubles]]:
    for start in range(0, count, _CHUNK):
        at = slice(start, min(count, start + _CHUNK))
        yield at, read(at.start, at.stop)
