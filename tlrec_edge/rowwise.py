"""Row-wise int8: every vector has a scale of its own (arXiv 1911.02079), and dot products stay exact in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def quantize_rows(vectors: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round each row to -127..127 by its largest magnitude: rows (n, width) and scales (n,).

    The error of an entry is at most half the row's scale.
    """
    scale = np.abs(vectors).max(1, initial=0.0).astype(np.float32) / np.float32(127.0)
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1.0))  # zero, or too small to divide by
    rows = np.clip(np.rint(vectors / scale[:, None]), -127, 127).astype(np.int8)
    return rows, scale


def store_rows(vectors: Floats, dtype: np.dtype[Any]) -> tuple[NDArray[Any], Floats]:
    """Return rows of a table's dtype and a scale each: quantized for int8, as they are (scale 1) for float32."""
    if dtype.kind == "f":
        return vectors.astype(np.float32), np.ones(len(vectors), np.float32)
    return quantize_rows(vectors)


def exact_limit(width: int) -> int:
    """Return the largest user integer for which every partial sum of an int8 dot product is exact in float32."""
    return min(32_767, (2**24 - 1) // (127 * max(width, 1)))
