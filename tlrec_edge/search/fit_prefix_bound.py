"""Fit the prefix bound of a catalogue (see ``prefix_bound``): the rotation and the prefix width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import SCAN_BLOCK
from tlrec_edge.bundle.item_vectors import Vectors
from tlrec_edge.search.prefix_bound import BIAS, EXTRA_COLUMNS, RESIDUAL_NORM
from tlrec_edge.search.prefix_scan import INT8_MAX, ZERO_POINT
from tlrec_edge.types import Bytes, Doubles, Floats

PREFIX_MIN_CANDIDATES = 20_000
"""Number of candidates from which prefixes save more time than their bytes cost."""
WIDTHS = (6, 14, 22, 30)
"""Possible numbers of rotated coordinates; with the extra columns, a multiple of eight bytes."""
_CHUNK = 1 << 15
_SAMPLE_USERS, _TOP_K = 64, 10
_ROW_COST, _FULL_SCAN_COST = 1500, 4
"""Time to score one full row, and to scan one entry of all rows, in units of one prefix entry."""
_USER_RIDGE = 0.1
"""Weight of all directions next to those of the sampled users; best from 96 users to 512."""


class Rotation(NamedTuple):
    """Linear maps that keep the product of any user and item vector: ``(users @ x) . (z @ items)``.

    The rotated coordinates are in the order of the variance that they explain in the products.
    """

    items: Doubles
    """Maps an item vector z to ``z @ items``, (D, D)."""
    users: Doubles
    """Maps a user vector x to ``users @ x``, (D, D): the inverse of ``items``."""
    mean: Doubles
    """Mean rotated item vector, (D,)."""
    max_norm: float
    """Length of the longest item vector before rotation."""

    def center(self, vectors: Doubles) -> Doubles:
        """Return item vectors (n, D) rotated and minus their mean, which shortens residuals."""
        return vectors @ self.items - self.mean


def fit_prefix_bound(vectors: Vectors, bias: Floats, users: Doubles) -> dict[str, NDArray[Any]]:
    """Return the arrays of the prefix bound that makes a top-10 fastest for user vectors (u, D).

    ``bias`` (C,) is that of the candidates. Return an empty dict if a full scan is faster.
    """
    count, d = len(bias), users.shape[1]
    if count < PREFIX_MIN_CANDIDATES or not len(users) or d <= WIDTHS[0]:
        return {}
    # The bound is tightest for users that the rotation was fitted to: choose the width on others.
    sample, others = np.split(users, [min(_SAMPLE_USERS, max(1, len(users) // 4))])
    rotation = _fit_rotation(vectors, count, others if len(others) else sample)
    widths = [h for h in WIDTHS if h < d]
    unpruned = _unpruned_fraction(vectors, bias, sample, rotation, widths)
    cost, h = min(
        (h + EXTRA_COLUMNS + _ROW_COST * fraction, h)
        for h, fraction in zip(widths, unpruned, strict=True)
    )
    if cost > _FULL_SCAN_COST * d / 2:
        return {}
    rows, scale = _quantized_prefixes(vectors, bias, rotation, h)
    # The names of the arrays are those of bundle format 1.
    return {
        "head_columns": _scan_columns(rows),
        "head_turn": rotation.users,
        "head_mean": rotation.mean,
        "head_step": scale,
        "head_reach": np.array([rotation.max_norm, float(np.abs(bias).max())]),
    }


def _scan_columns(rows: NDArray[np.int8]) -> Bytes:
    """Return prefixes (C, width) as a scan reads them: by column, uint8, padded to full blocks."""
    count = len(rows)
    columns = np.empty((rows.shape[1], -(-count // SCAN_BLOCK) * SCAN_BLOCK), np.uint8)
    np.add(rows.T, ZERO_POINT, out=columns[:, :count], casting="unsafe", dtype=np.int16)
    columns[:, count:] = columns[:, count - 1 : count]  # a copy of the last candidate
    return columns


def _chunks(vectors: Vectors, count: int) -> Iterator[tuple[slice, Doubles]]:
    for start in range(0, count, _CHUNK):
        end = min(count, start + _CHUNK)
        yield slice(start, end), vectors(start, end)


def _fit_rotation(vectors: Vectors, count: int, users: Doubles) -> Rotation:
    """Rotate to the principal axes of the items, weighted by how users look at them.

    A product x . z stays the same if x is multiplied with the inverse of a matrix M and z with M.
    M is the root of the users' second moment, so a direction counts by how much users vary in it,
    times the principal axes of the items in that space.
    """
    d = users.shape[1]
    moment = users.T @ users / len(users)
    ridge = _USER_RIDGE * max(np.trace(moment) / d, 1e-30)
    eigenvalues, axes = np.linalg.eigh(moment + ridge * np.eye(d))
    root = axes * np.sqrt(eigenvalues)
    total, square, max_norm = np.zeros(d), np.zeros((d, d)), 0.0
    for _, part in _chunks(vectors, count):
        projected = part @ root
        total += projected.sum(0)
        square += projected.T @ projected
        max_norm = max(max_norm, float(np.sqrt((part**2).sum(1).max())))
    mean = total / count
    _, principal = np.linalg.eigh(square / count - np.outer(mean, mean))
    principal = principal[:, ::-1]  # largest variance first
    inverse_root = (axes / np.sqrt(eigenvalues)).T
    return Rotation(root @ principal, principal.T @ inverse_root, mean @ principal, max_norm)


def _unpruned_fraction(
    vectors: Vectors, bias: Floats, users: Doubles, rotation: Rotation, widths: list[int]
) -> Doubles:
    """Return the share of candidates whose bound reaches a user's tenth best score, by width."""
    best = np.full((len(users), _TOP_K), -np.inf)
    for at, part in _chunks(vectors, len(bias)):
        scores = np.concatenate([best, users @ part.T + bias[at]], 1)
        best = -np.partition(-scores, _TOP_K - 1, 1)[:, :_TOP_K]
    threshold = best.min(1, keepdims=True)
    rotated = users @ rotation.users.T
    mean_score = (rotated @ rotation.mean)[:, None]
    survivors = np.zeros(len(widths))
    for at, part in _chunks(vectors, len(bias)):
        items = rotation.center(part)
        for i, h in enumerate(widths):
            user_norm = np.linalg.norm(rotated[:, h:], axis=1)[:, None]
            item_norm = np.linalg.norm(items[:, h:], axis=1)
            bound = rotated[:, :h] @ items[:, :h].T + mean_score + bias[at]
            bound += user_norm * item_norm
            survivors[i] += (bound >= threshold).sum()
    return survivors / (len(users) * len(bias))


def _quantized_prefixes(
    vectors: Vectors, bias: Floats, rotation: Rotation, h: int
) -> tuple[NDArray[np.int8], Doubles]:
    """Return int8 prefixes (C, h + 2), and the step and offset of each column, (2, h + 2)."""
    width = h + EXTRA_COLUMNS
    low, high = np.full(width, np.inf), np.full(width, -np.inf)

    def prefixes(at: slice, part: Doubles) -> Doubles:
        items = rotation.center(part)
        values = np.empty((len(part), width))
        values[:, :h] = items[:, :h]
        values[:, BIAS] = bias[at]
        values[:, RESIDUAL_NORM] = np.linalg.norm(items[:, h:], axis=1)
        return values

    for at, part in _chunks(vectors, len(bias)):
        values = prefixes(at, part)
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
    step = np.maximum((high - low) / (2 * INT8_MAX), 1e-30)
    offset = (high + low) / 2
    rows = np.empty((len(bias), width), np.int8)
    for at, part in _chunks(vectors, len(bias)):
        entries = (prefixes(at, part) - offset) / step
        # Rounded up: a residual norm that is too small would make the bound too low.
        entries[:, RESIDUAL_NORM] = np.ceil(entries[:, RESIDUAL_NORM])
        rows[at] = np.clip(np.rint(entries), -INT8_MAX, INT8_MAX)
    return rows, np.stack([step, offset])
