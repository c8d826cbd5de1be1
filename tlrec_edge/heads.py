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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.history import UserState
from tlrec_edge.lists import LONGEST, make_lists
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
MANY = 200_000
"""Candidates beyond which heads are kept in lists, so that a search may look into the likeliest alone."""
_BLOCK, _CHUNK = 4096, 1 << 15
_NONE = np.zeros(0, np.intp)
_SAMPLE, _K = 64, 10
_WHOLE = 500
"""What scoring a whole row costs, in head entries read (measured: 70 ns and 0.14 ns)."""
_TOP = 127
_ROUNDING = 8e-6
"""Share of the largest possible score that float32 arithmetic may be off by; dozens of times what it is."""


class Heads:
    """The heads of one bundle, all or list by list; safe to read from many threads."""

    def __init__(self, array: Callable[[str], NDArray[Any]], probes: int = 0) -> None:
        """``probes``: how many lists an inexact search looks into; 0 where there are none."""
        self._rows: NDArray[np.int8] = array("head_rows")
        self._turn, self._mean = array("head_turn"), array("head_mean")
        self._step, self._offset = array("head_step")
        self._reach = array("head_reach")
        self._probes = probes
        self._order: Ints | None = array("list_order") if probes else None
        self._starts: NDArray[np.int64] = array("list_starts") if probes else np.zeros(1, np.int64)
        self._centres: Floats = array("list_centres") if probes else np.zeros((0, 0), np.float32)
        self._scratch = threading.local()

    def best(
        self, state: UserState, k: int, excluded: Places, score: Callable[[Places], Floats], exact: bool = True
    ) -> tuple[Places, Floats] | None:
        """Return the k best candidates, best first, and their scores; None where the bounds leave too many open.

        ``score`` gives the scores of candidates, rising, as a full scan would. Among equals the lower row comes first.
        With ``exact`` False, and where there are lists, the best of the likeliest lists, and of what is lifted.
        """
        entry, slack = self._entry(state)
        places = None if exact or not self._probes or k > LONGEST else self._probed(entry)
        bounds = self._scan(entry, places)
        lifted = _NONE
        if len(state.wide):
            columns, lifts = state.wide.summed
            if self._order is None:
                bounds[columns] += lifts
            else:  # where a lifted candidate's head stands is not known: it is scored whole
                lifted = columns[lifts > 0]
            slack += _ROUNDING * float(np.abs(lifts).max())
        excluded = np.sort(excluded)

        def named(at: Places) -> Places:
            """Return the candidates of some places and the lifted ones, rising, without those excluded."""
            if places is not None:
                at = places.take(at)
            found = np.union1d(at if self._order is None else self._order.take(at), lifted)
            return found[_absent(found, excluded)]

        first = score(named(top_k(bounds, 2 * k + 32 + len(excluded))))
        if len(first) < k:
            return None
        least = float(np.partition(first, len(first) - k)[len(first) - k])
        left = np.flatnonzero(bounds >= np.float32(least - slack))
        if len(left) > len(self._rows) // 4:
            return None
        found = named(left)
        scores = score(found)
        best = top_k(scores, k)
        return found[best], scores[best]

    def _entry(self, state: UserState) -> tuple[Floats, float]:
        """Return what heads are multiplied with (h + 2,), and what no score, lifts aside, exceeds the product by."""
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
        return entry.astype(np.float32), slack

    def _probed(self, entry: Floats) -> Places:
        """Return the places of the heads in the likeliest lists."""
        likely = self._centres @ entry
        count = min(self._probes, len(likely))
        lists = np.sort(np.argpartition(-likely, count - 1)[:count])
        starts = self._starts.take(lists)
        lengths = self._starts.take(lists + 1) - starts
        ends = lengths.cumsum()
        places: Places = np.arange(int(ends[-1])) + (starts - (ends - lengths)).repeat(lengths)
        return places

    def _scan(self, entry: Floats, places: Places | None) -> Floats:
        """Return the product of heads, all or those at ``places``, with ``entry``."""
        buffer: Floats | None = getattr(self._scratch, "buffer", None)
        if buffer is None:
            buffer = self._scratch.buffer = np.empty((_BLOCK, len(entry)), np.float32)
        heads = self._rows if places is None else self._rows.take(places, axis=0)
        out = np.empty(len(heads), np.float32)
        for start in range(0, len(out), _BLOCK):
            rows = heads[start : start + _BLOCK]
            block = buffer[: len(rows)]
            block[...] = rows
            np.matmul(block, entry, out=out[start : start + len(rows)])
        return out


def _absent(values: Places, among: Places) -> NDArray[np.bool_]:
    """Mark what is not ``among`` some rising numbers."""
    if not len(among):
        return np.ones(len(values), bool)
    at = np.minimum(among.searchsorted(values), len(among) - 1)
    absent: NDArray[np.bool_] = among.take(at) != values
    return absent


def stored_vectors(form: RowFormat, rows: NDArray[Any], scale: NDArray[Any]) -> Vectors:
    """Return what reads the item vectors off the arrays of a bundle."""

    def read(start: int, end: int) -> Doubles:
        at = slice(start, end)
        return np.concatenate([form.values(rows[at], i) * scale[at, i, None].astype(np.float64) for i in (0, 1)], 1)

    return read


class Fitted(NamedTuple):
    """The arrays of the heads, none where none pay, and the manifest's entry ``index``: lists, probes and recall."""

    arrays: Mapping[str, NDArray[Any]]
    card: Mapping[str, Any]


def fit_heads(vectors: Vectors, bias: Floats, users: Doubles) -> Fitted:
    """Return the heads that make a top-10 cheapest for the user vectors (u, D), in lists where items are MANY."""
    count, d = len(bias), users.shape[1]
    if count < LEAST or not len(users) or d <= WIDTHS[0]:
        return Fitted({}, {})
    # Users the turn was fitted to are too easy: the width is chosen on others.
    sample, rest = np.split(users, [min(_SAMPLE, max(1, len(users) // 4))])
    into, turn, mean, reach = _turns(vectors, count, rest if len(rest) else sample)
    widths = [h for h in WIDTHS if h < d]
    open_ = _left_open(vectors, bias, sample, (into, mean), sample @ turn.T, widths)
    price, h = min((h + 2 + _WHOLE * share, h) for h, share in zip(widths, open_, strict=True))
    if price > d / 2:
        return Fitted({}, {})
    rows, scale = _heads(vectors, bias, into, mean, h)
    limits = np.array([reach, float(np.abs(bias).max())])
    arrays: dict[str, NDArray[Any]] = {
        "head_rows": rows,
        "head_turn": turn,
        "head_mean": mean,
        "head_step": scale,
        "head_reach": limits,
    }
    if count <= MANY:
        return Fitted(arrays, {})
    turned = sample @ turn.T
    factors = [turned[:, :h], np.ones((len(sample), 1)), np.linalg.norm(turned[:, h:], axis=1, keepdims=True)]
    lists = make_lists(rows, scale[0], np.concatenate(factors, 1) * scale[0], _best_of(vectors, bias, sample))
    return Fitted({**arrays, **lists.arrays}, lists.card)


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


def _best_of(vectors: Vectors, bias: Floats, users: Doubles) -> Places:
    """Return each user's LONGEST best candidates, best first, (u, LONGEST)."""
    best = np.full((len(users), LONGEST), -np.inf)
    names = np.zeros((len(users), LONGEST), np.intp)
    for at, part in _chunks(vectors, len(bias)):
        scores = np.concatenate([best, users @ part.T + bias[at]], 1)
        found = np.concatenate([names, np.broadcast_to(np.arange(at.start, at.stop), (len(users), len(part)))], 1)
        top = np.argpartition(-scores, LONGEST - 1, 1)[:, :LONGEST]
        best, names = np.take_along_axis(scores, top, 1), np.take_along_axis(found, top, 1)
    order = np.argsort(-best, 1)
    return np.take_along_axis(names, order, 1)


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
