"""Product quantization of a bundle's candidates, and an exact top-k search with it.

Vectors are rotated so that users weigh all axes equally and items vary along them. The axes are
distributed to subspaces of about equal variance (optimized product quantization, Ge et al.,
CVPR 2013, the parametric form). In each subspace an item is the nearest of 256 centroids, one
byte. Two more bytes hold its bias, and the norm of its residual, rounded up. With the user x,
the item's centroids c and the residual r, x . z = x . c + x . r, and |x . r| <= |x| |r| by
Cauchy and Schwarz. So a scan of the codes finds all items that can be among the k best, and
only those are scored from their full rows, which stay on disk.
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
"""Bound of the float32 rounding error as a share of the largest score, with a wide margin."""


class Codes(NamedTuple):
    """The codes of all candidates.

    ``turn`` (M * width, D) rotates a user to the axes of the M subspaces; ``centroids`` are
    (M, 256, width). ``pairs`` (M / 2 + 1, C) has two bytes per entry: those of subspaces 0 and 1,
    2 and 3, ..., and at last of bias and residual. The bias is ``bias[0]`` + ``bias[1]`` times its
    byte, with an error of half a step; the norm of the residual is at most ``step`` times its byte.
    ``reach`` is the largest norm of a candidate vector.
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
        """Return the scores of two bytes for a user (D,), (M / 2 + 1, 256 * 256), and their error.

        With ``bounds`` the last byte adds the largest score of the residual, so that sums are upper
        bounds; without it they are estimates.
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
    """The best candidates, best first, their scores, and how many were scored in full."""

    places: Places
    scores: Floats
    full: int


def exact_top(codes: Codes, rec: Recommender, state: UserState, k: int) -> Found:
    """Return the k best candidates, the same bits as a scan of all full rows."""
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


def likely_top(codes: Codes, rec: Recommender, state: UserState, k: int, full: int) -> Found:
    """Return the k best of the ``full`` candidates with the best scores by codes."""
    tables, _ = codes.tables(user_vector(state), bounds=False)
    estimates = codes.scan(tables)
    _lift(estimates, state)
    likely = np.sort(top_k(estimates, full))
    scores = rec.score(state, ItemRows(likely))
    best = top_k(scores, k)
    return Found(likely[best], scores[best], full)


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
    """Fit the codes of all candidates to a sample of users (u, D), with a byte per subspace.

    Raises ValueError if ``subspaces`` is odd or above D.
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
    """Return the rotations of items, z @ into, (D, M * width), and of users, turn @ x.

    The axes are the principal ones of the items, weighted by the users. In the order of falling
    variance each goes to the subspace with the smallest product so far; free places stay 0.
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
