"""Exact top-k by block maxima."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
_BLOCK = 128


def top_k(scores: Scores, k: int) -> NDArray[np.intp]:
    """Return the positions of the k largest scores, best first, the lower position first among equals.

    Positions that score -inf are left out, so fewer than k may come back.
    """
    kept = np.flatnonzero(scores >= _lower_bound(scores, k))
    values = scores[kept]
    kept, values = kept[values > -np.inf], values[values > -np.inf]
    return kept[np.argsort(-values, kind="stable")[:k]]


def _lower_bound(scores: Scores, k: int) -> np.float32:
    """Return a value that at least k scores reach: the k-th largest block maximum, or the k-th score itself."""
    blocks = len(scores) // _BLOCK
    if k >= len(scores):
        return np.float32(-np.inf)
    if k >= blocks:
        return np.float32(np.partition(scores, len(scores) - k)[len(scores) - k])
    maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)  # (blocks,)
    return np.float32(np.partition(maxima, blocks - k)[blocks - k])
