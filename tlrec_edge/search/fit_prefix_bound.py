"""Fit the heads of a catalogue (see ``heads``): which turn, and how wide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import SCAN_BLOCK
from tlrec_edge.bundle.item_vectors import Vectors
from tlrec_edge.search.prefix_scan import ZERO_POINT
from tlrec_edge.types import Doubles, Floats

PREFIX_MIN_CANDIDATES = 20_000
"""Candidates from which on heads are worth their bytes."""
WIDTHS = (6, 14, 22, 30)
"""How many turned coordinates a head may have; with bias and the norm of the rest, a multiple of eight bytes."""
_CHUNK = 1 << 15
_SAMPLE_USERS, _TOP_K = 64, 10
_ROW_COST, _FULL_SCAN_COST = 1500, 4
"""What scoring a whole row costs, in head entries read, and what an entry of a full scan does."""
_INT8_MAX = 127


def fit_prefix_bound(vectors: Vectors, bias: Floats, users: Doubles) -> dict[str, NDArray[Any]]:
    """Return the arrays of the heads that make a top-10 cheapest for the user vectors (u, D); none where none pay."""
    count, d = len(bias), users.shape[1]
    if count < PREFIX_MIN_CANDIDATES or not len(users) or d <= WIDTHS[0]:
        return {}
    # Users the rotation was fitted to are too easy: the width is chosen on others.
    sample, others = np.split(users, [min(_SAMPLE_USERS, max(1, len(users) // 4))])
    item_rotation, user_rotation, mean, max_norm = _fit_rotation(
        vectors, count, others if len(others) else sample
    )
    widths = [h for h in WIDTHS if h < d]
    unpruned = _unpruned_fraction(
        vectors, bias, sample, (item_rotation, mean), sample @ user_rotation.T, widths
    )
    cost, h = min(
        (h + 2 + _ROW_COST * fraction, h) for h, fraction in zip(widths, unpruned, strict=True)
    )
    if cost > _FULL_SCAN_COST * d / 2:
        return {}
    rows, scale = _quantized_prefixes(vectors, bias, item_rotation, mean, h)
    limits = np.array([max_norm, float(np.abs(bias).max())])
    return {
        "head_columns": _scan_columns(rows),
        "head_turn": user_rotation,
        "head_mean": mean,
        "head_step": scale,
        "head_reach": limits,
    }


def _scan_columns(rows: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return heads (C, width) as a scan reads them: by column, unsigned, the last one repeated to whole blocks."""
    columns = np.empty((rows.shape[1], -(-len(rows) // SCAN_BLOCK) * SCAN_BLOCK), np.uint8)
    np.add(rows.T, ZERO_POINT, out=columns[:, : len(rows)], casting="unsafe", dtype=np.int16)
    columns[:, len(rows) :] = columns[:, len(rows) - 1 : len(rows)]
    return columns


def _chunks(vectors: Vectors, count: int) -> Any:
    for start in range(0, count, _CHUNK):
        end = min(count, start + _CHUNK)
        yield slice(start, end), vectors(start, end)


def _fit_rotation(
    vectors: Vectors, count: int, users: Doubles
) -> tuple[Doubles, Doubles, Doubles, float]:
    """Return what turns items (D, D), z @ into, and users, turn @ x; the mean turned item; the longest item vector.

    Coordinates are the main axes of the items as the users see them, who may also look elsewhere a little: a tenth of
    the mean was best from 96 users to 512.
    """
    d = users.shape[1]
    moment = users.T @ users / len(users)
    eigenvalues, axes = np.linalg.eigh(moment + 0.1 * max(np.trace(moment) / d, 1e-30) * np.eye(d))
    root = axes * np.sqrt(eigenvalues)
    total, square, max_norm = np.zeros(d), np.zeros((d, d)), 0.0
    for _, part in _chunks(vectors, count):
        projected = part @ root
        total += projected.sum(0)
        square += projected.T @ projected
        max_norm = max(max_norm, float(np.sqrt((part**2).sum(1).max())))
    mean = total / count
    _, main_axes = np.linalg.eigh(square / count - np.outer(mean, mean))
    main_axes = main_axes[:, ::-1]
    return (
        root @ main_axes,
        main_axes.T @ (axes / np.sqrt(eigenvalues)).T,
        mean @ main_axes,
        max_norm,
    )


def _unpruned_fraction(
    vectors: Vectors,
    bias: Floats,
    users: Doubles,
    rotation: tuple[Doubles, Doubles],
    rotated_users: Doubles,
    widths: list[int],
) -> Doubles:
    """Return the share of candidates whose bound reaches the users' tenth best score, for each width."""
    best = np.full((len(users), _TOP_K), -np.inf)
    for at, part in _chunks(vectors, len(bias)):
        scores = np.concatenate([best, users @ part.T + bias[at]], 1)
        best = -np.partition(-scores, _TOP_K - 1, 1)[:, :_TOP_K]
    threshold = best.min(1, keepdims=True)
    found = np.zeros(len(widths))
    item_rotation, mean = rotation
    for at, part in _chunks(vectors, len(bias)):
        projected = part @ item_rotation - mean
        for i, h in enumerate(widths):
            bound = (
                rotated_users[:, :h] @ projected[:, :h].T
                + (rotated_users @ mean)[:, None]
                + bias[at]
            )
            bound += np.linalg.norm(rotated_users[:, h:], axis=1)[:, None] * np.linalg.norm(
                projected[:, h:], axis=1
            )
            found[i] += (bound >= threshold).sum()
    return found / (len(users) * len(bias))


def _quantized_prefixes(
    vectors: Vectors, bias: Floats, item_rotation: Doubles, mean: Doubles, h: int
) -> tuple[NDArray[np.int8], Doubles]:
    """Return the heads (C, h + 2) and step and offset of each of their columns (2, h + 2)."""
    low, high = np.full(h + 2, np.inf), np.full(h + 2, -np.inf)

    def values(at: slice, part: Doubles) -> Doubles:
        projected = part @ item_rotation - mean
        residual_norm = np.linalg.norm(projected[:, h:], axis=1)
        return np.concatenate(
            [projected[:, :h], bias[at, None].astype(np.float64), residual_norm[:, None]], 1
        )

    for at, part in _chunks(vectors, len(bias)):
        found = values(at, part)
        low, high = np.minimum(low, found.min(0)), np.maximum(high, found.max(0))
    step = np.maximum((high - low) / (2 * _INT8_MAX), 1e-30)
    offset = (high + low) / 2
    rows = np.empty((len(bias), h + 2), np.int8)
    for at, part in _chunks(vectors, len(bias)):
        entries = (values(at, part) - offset) / step
        entries[:, -1] = np.ceil(entries[:, -1])
        rows[at] = np.clip(np.rint(entries), -_INT8_MAX, _INT8_MAX)
    return rows, np.stack([step, offset])
