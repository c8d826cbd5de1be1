"""The best of scores, by block maxima."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Indices

Scores = NDArray[np.float32]
_BLOCK = 128
_BLOCKS_PER_RESULT = 4
"""Blocks for each of the best, with fewer of which their maxima lie too far below the k-th score."""


def top_k(scores: Scores, k: int) -> NDArray[np.intp]:
    """Return the positions of the k largest scores, best first, the lower position first among equals.

    Positions that score -inf are left out, so fewer than k may come back.
    """
    selected = np.flatnonzero(scores >= lower_bound(scores, k))
    values = scores[selected]
    selected, values = selected[values > -np.inf], values[values > -np.inf]
    return selected[np.argsort(-values, kind="stable")[:k]]


def lower_bound(scores: NDArray[Any], k: int, maxima: NDArray[Any] | None = None) -> float:
    """Return a value that at least k scores reach: the k-th largest block maximum, or the k-th score itself.

    ``maxima`` of blocks, where they are known.
    """
    blocks = len(scores) // _BLOCK if maxima is None else len(maxima)
    if k >= len(scores):
        return -math.inf
    if _BLOCKS_PER_RESULT * k >= blocks:
        return float(np.partition(scores, len(scores) - k)[len(scores) - k])
    if maxima is None:
        maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)  # (blocks,)
    return float(np.partition(maxima, blocks - k)[blocks - k])


def top_k_of(
    positions: Indices, scores: Scores, k: int, excluded: Indices
) -> tuple[Indices, Scores]:
    """Return the k best of some candidates, each there once, that are not ``excluded``, and their scores.

    Best first, the lower place first among equals.
    """
    threshold = lower_bound(scores, k + len(excluded))
    found = (scores >= threshold).nonzero()[0]
    positions, scores = positions.take(found), scores.take(found)
    order = np.lexsort((positions, -scores))
    if len(excluded):
        order = order[absent(positions.take(order), np.sort(excluded))]
    order = order[:k]
    return positions.take(order), scores.take(order)


def absent(values: Indices, among: Indices) -> NDArray[np.bool_]:
    """Mark what is not ``among`` some rising numbers."""
    if not len(among):
        return np.ones(len(values), bool)
    at = among.searchsorted(values)
    np.minimum(at, len(among) - 1, out=at)
    found: NDArray[np.bool_] = among.take(at) != values
    return found
