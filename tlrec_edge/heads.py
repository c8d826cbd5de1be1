"""Exact top-k that reads few whole rows: a head, a short int8 row an item, bounds the item's score from above.

A score is the product of a user vector x and an item vector z, plus bias and lifts. Both are turned, without changing
the product, so that the first h of D coordinates say most of it; for the others Cauchy and Schwarz give a bound:
x . z <= x[:h] . z[:h] + |x[h:]| |z[h:]|. A head holds z[:h], the bias and |z[h:]|, the last rounded up; what rounding
the others may hide is a constant for each user. Items whose bound reaches the k-th best of the scores found first are
scored whole, so the answer is that of a full scan. (The idea of RecJPQPrune, arXiv 2505.00560, on turned vectors.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.history import UserState
from tlrec_edge.packing import RowFormat
from tlrec_edge.topk import top_k

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = NDArray[np.intp]
Vectors = Callable[[int, int], Doubles]
"""The item vectors of candidates start..end-1, (n, D)."""

LEAST = 20_000
"""Candidates from which on heads are worth their bytes."""
WIDTHS = (6, 14, 22, 30)
"""How many turned coordinates a head may have; with bias and the norm of the rest, a multiple of eight bytes."""
_BLOCK, _CHUNK = 4096, 1 << 15
_SAMPLE, _K = 32, 10
_WHOLE = 500
"""What scoring a whole row costs, in head entries read (measured: 70 ns and 0.14 ns)."""
_TOP = 127
_ROUNDING = 8e-6
"""Share of the largest possible score that float32 arithmetic may be off by; dozens of times what it is."""


class Heads:
    """The heads of one bundle; safe to read from many threads."""

    def __init__(self, array: Callable[[str], NDArray[Any]]) -> None:
        self._rows: NDArray[np.int8] = array("head_rows")
        self._turn, self._mean = array("head_turn"), array("head_mean")
        self._step, self._offset = array("head_step")
        self._reach = array("head_reach")
        self._scratch = threading.local()

    def best(
        self, state: UserState, k: int, excluded: Ints, score: Callable[[Places], Floats]
    ) -> tuple[Places, Floats] | None:
        """Return the k best candidates, best first, and their scores; None where the bounds leave too many open.

        ``score`` gives the scores of candidates, rising, as a full scan would. Among equals the lower row comes first.
        """
        bounds, slack = self._bounds(state)
        if len(state.wide):
            columns, lifts = state.wide.summed
            bounds[columns] += lifts
            slack += _ROUNDING * float(np.abs(lifts).max())
        bounds[excluded] = -np.inf
        first = score(np.sort(top_k(bounds, 2 * k + 32)))
        if len(first) < k:
            return None
        least = float(np.partition(first, len(first) - k)[len(first) - k])
        left = np.flatnonzero(bounds >= np.float32(least - slack))
        if len(left) > len(bounds) // 4:
            return None
        scores = score(left)
        best = top_k(scores, k)
        return left[best], scores[best]

    def _bounds(self, state: UserState) -> tuple[Floats, float]:
        """Return (C,) numbers and what no score, lifts aside, exceeds them by."""
        user = np.concatenate([state.deep * float(state.deep_scale), state.interest * float(state.interest_scale)])
        turned: Doubles = self._turn @ user
        h = len(self._step) - 2
        rest = float(np.linalg.norm(turned[h:]))
        factor = np.concatenate([turned[:h], [1.0, rest]])
        entry = factor * self._step
        size = np.abs(entry)
        slack = float(turned @ self._mean + factor @ self._offset + size[:-1].sum() / 2)
        slack += _ROUNDING * (_TOP * float(size.sum()) + abs(slack))
        slack += _ROUNDING * (float(np.linalg.norm(user)) * float(self._reach[0]) + float(self._reach[1]))
        return self._scan(entry.astype(np.float32)), slack

    def _scan(self, entry: Floats) -> Floats:
        """Return the product of every head with ``entry``, (C,)."""
        buffer: Floats | None = getattr(self._scratch, "buffer", None)
        if buffer is None:
            buffer = self._scratch.buffer = np.empty((_BLOCK, len(entry)), np.float32)
        out = np.empty(len(self._rows), np.float32)
        for start in range(0, len(out), _BLOCK):
            rows = self._rows[start : start + _BLOCK]
            block = buffer[: len(rows)]
            block[...] = rows
            np.matmul(block, entry, out=out[start : start + len(rows)])
        return out


def stored_vectors(form: RowFormat, rows: NDArray[Any], scale: NDArray[Any]) -> Vectors:
    """Return what reads the item vectors off the arrays of a bundle."""

    def read(start: int, end: int) -> Doubles:
        at = slice(start, end)
        return np.concatenate([form.values(rows[at], i) * scale[at, i, None].astype(np.float64) for i in (0, 1)], 1)

    return read


def fit_heads(vectors: Vectors, bias: Floats, users: Doubles) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of the heads that make a top-10 cheapest for the user vectors (u, D); none where none pay."""
    count, d = len(bias), users.shape[1]
    if count < LEAST or not len(users) or d <= WIDTHS[0]:
        return {}
    # Users the turn was fitted to are too easy: the width is chosen on others.
    sample, rest = np.split(users, [min(_SAMPLE, max(1, len(users) // 4))])
    into, turn, mean, reach = _turns(vectors, count, rest if len(rest) else sample)
    widths = [h for h in WIDTHS if h < d]
    open_ = _left_open(vectors, bias, sample, (into, mean), sample @ turn.T, widths)
    price, h = min((h + 2 + _WHOLE * share, h) for h, share in zip(widths, open_, strict=True))
    if price > d / 2:
        return {}
    rows, scale = _heads(vectors, bias, into, mean, h)
    limits = np.array([reach, float(np.abs(bias).max())])
    return {"head_rows": rows, "head_turn": turn, "head_mean": mean, "head_step": scale, "head_reach": limits}


def _chunks(vectors: Vectors, count: int) -> Any:
    for start in range(0, count, _CHUNK):
        end = min(count, start + _CHUNK)
        yield slice(start, end), vectors(start, end)


def _turns(vectors: Vectors, count: int, users: Doubles) -> tuple[Doubles, Doubles, Doubles, float]:
    """Return what turns items (D, D), z @ into, and users, turn @ x; the mean turned item; the longest item vector.

    Coordinates are the main axes of the items as the users see them, who may also look elsewhere a little: a tenth of
    the mean was best from 96 users to 512.
    """
    d = users.shape[1]
    moment = users.T @ users / len(users)
    value, axes = np.linalg.eigh(moment + 0.1 * max(np.trace(moment) / d, 1e-30) * np.eye(d))
    root = axes * np.sqrt(value)
    total, square, reach = np.zeros(d), np.zeros((d, d)), 0.0
    for _, part in _chunks(vectors, count):
        seen = part @ root
        total += seen.sum(0)
        square += seen.T @ seen
        reach = max(reach, float(np.sqrt((part**2).sum(1).max())))
    mean = total / count
    _, main = np.linalg.eigh(square / count - np.outer(mean, mean))
    main = main[:, ::-1]
    return root @ main, main.T @ (axes / np.sqrt(value)).T, mean @ main, reach


def _left_open(
    vectors: Vectors, bias: Floats, users: Doubles, into: tuple[Doubles, Doubles], turned: Doubles, widths: list[int]
) -> Doubles:
    """Return the share of candidates whose bound reaches the users' tenth best score, for each width."""
    best = np.full((len(users), _K), -np.inf)
    for at, part in _chunks(vectors, len(bias)):
        scores = np.concatenate([best, users @ part.T + bias[at]], 1)
        best = -np.partition(-scores, _K - 1, 1)[:, :_K]
    least = best.min(1, keepdims=True)
    found = np.zeros(len(widths))
    turn, mean = into
    for at, part in _chunks(vectors, len(bias)):
        seen = part @ turn - mean
        for i, h in enumerate(widths):
            bound = turned[:, :h] @ seen[:, :h].T + (turned @ mean)[:, None] + bias[at]
            bound += np.linalg.norm(turned[:, h:], axis=1)[:, None] * np.linalg.norm(seen[:, h:], axis=1)
            found[i] += (bound >= least).sum()
    return found / (len(users) * len(bias))


def _heads(vectors: Vectors, bias: Floats, into: Doubles, mean: Doubles, h: int) -> tuple[NDArray[np.int8], Doubles]:
    """Return the heads (C, h + 2) and step and offset of each of their columns (2, h + 2)."""
    low, high = np.full(h + 2, np.inf), np.full(h + 2, -np.inf)

    def values(at: slice, part: Doubles) -> Doubles:
        seen = part @ into - mean
        rest = np.linalg.norm(seen[:, h:], axis=1)
        return np.concatenate([seen[:, :h], bias[at, None].astype(np.float64), rest[:, None]], 1)

    for at, part in _chunks(vectors, len(bias)):
        found = values(at, part)
        low, high = np.minimum(low, found.min(0)), np.maximum(high, found.max(0))
    step = np.maximum((high - low) / (2 * _TOP), 1e-30)
    offset = (high + low) / 2
    rows = np.empty((len(bias), h + 2), np.int8)
    for at, part in _chunks(vectors, len(bias)):
        entries = (values(at, part) - offset) / step
        entries[:, -1] = np.ceil(entries[:, -1])
        rows[at] = np.clip(np.rint(entries), -_TOP, _TOP)
    return rows, np.stack([step, offset])
