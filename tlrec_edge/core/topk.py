"""The k best of many scores, selected with the help of block maxima instead of a full sort."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Bools, Floats, Indices

_BLOCK = 128
_BLOCKS_PER_RESULT = 4
"""With fewer blocks for each of the k results, the bound from block maxima is too loose to pay."""


def top_k(scores: Floats, k: int) -> Indices:
    """Return the positions of the k largest scores, best first; ties go to the lower position.

    Positions with a score of -inf are left out, so the result may be shorter than k.
    """
    selected = np.flatnonzero(scores >= lower_bound(scores, k))
    values = scores[selected]
    selected, values = selected[values > -np.inf], values[values > -np.inf]
    return selected[np.argsort(-values, kind="stable")[:k]]


def lower_bound(scores: NDArray[Any], k: int, maxima: NDArray[Any] | None = None) -> float:
    """Return a value that at least k of the scores reach, as high as is cheap to find.

    ``maxima`` are the maxima of blocks of the scores, if the caller has them.
    """
    # Each block contains its maximum, so at least k scores reach the k-th largest block maximum.
    # Partitioning the maxima is much cheaper than partitioning all scores, and with many more
    # blocks than k the k best scores mostly lie in different blocks, so the bound is tight.
    blocks = len(scores) // _BLOCK if maxima is None else len(maxima)
    if k >= len(scores):
        return -math.inf
    if _BLOCKS_PER_RESULT * k >= blocks:
        return _kth_largest(scores, k)
    if maxima is None:
        # Scores after the last full block can be ignored: fewer maxima only lower the bound.
        maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)  # (blocks,)
    return _kth_largest(maxima, k)


def _kth_largest(values: NDArray[Any], k: int) -> float:
    at = len(values) - k
    partitioned = values.copy()
    partitioned.partition(at)
    return float(partitioned[at])


def top_k_of(
    positions: Indices, scores: Floats, k: int, excluded: Indices
) -> tuple[Indices, Floats]:
    """Return the k best of distinct candidates that are not ``excluded``, and their scores.

    The best comes first; ties go to the lower position.
    """
    threshold = lower_bound(scores, k + len(excluded))
    selected = (scores >= threshold).nonzero()[0]
    positions, scores = positions.take(selected), scores.take(selected)
    order = np.lexsort((positions, -scores))
    if len(excluded):
        order = order[absent(positions.take(order), np.sort(excluded))]
    order = order[:k]
    return positions.take(order), scores.take(order)


def absent(values: Indices, ascending: Indices) -> Bools:
    """Return a mask of the values that are not among some numbers in ascending order."""
    if not len(ascending):
        return np.ones(len(values), bool)
    at = ascending.searchsorted(values)
    np.minimum(at, len(ascending) - 1, out=at)
    mask: Bools = ascending.take(at) != values
    return mask
