"""Fit the heads of a catalogue (see ``heads``): which turn, and how wide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import BLOCK
from tlrec_edge.bundle.item_vectors import Vectors
from tlrec_edge.search.prefix_scan import ZERO

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LEAST = 20_000
"""Candidates from which on heads are worth their bytes."""
WIDTHS = (6, 14, 22, 30)
"""How many turned coordinates a head may have; with bias and the norm of the rest, a multiple of eight bytes."""
_CHUNK = 1 << 15
_SAMPLE, _K = 64, 10
_WHOLE, _FULL = 1500, 4
"""What scoring a whole row costs, in head entries read, and what an entry of a full scan does."""
_TOP = 127


def fit_heads(vectors: Vectors, bias: Floats, users: Doubles) -> dict[str, NDArray[Any]]:
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
    if price > _FULL * d / 2:
        return {}
    rows, scale = _heads(vectors, bias, into, mean, h)
    limits = np.array([reach, float(np.abs(bias).max())])
    return {
        "head_columns": _columns(rows),
        "head_turn": turn,
        "head_mean": mean,
        "head_step": scale,
        "head_reach": limits,
    }


def _columns(rows: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return heads (C, width) as a scan reads them: by column, unsigned, the last one repeated to whole blocks."""
    columns = np.empty((rows.shape[1], -(-len(rows) // BLOCK) * BLOCK), np.uint8)
    np.add(rows.T, ZERO, out=columns[:, : len(rows)], casting="unsafe", dtype=np.int16)
    columns[:, len(rows) :] = columns[:, len(rows) - 1 : len(rows)]
    return columns


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
