"""Row-wise quantization: one scale per vector (arXiv 1911.02079), and exact dot products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Floats, Scales

MAX_ENTRY = {8: 127, 6: 31, 4: 7}
"""Largest magnitude of an entry, by bits. The range is symmetric: -128, -32 and -8 are unused."""
_CLIP_FACTORS = np.linspace(1.0, 0.5, 26)
_CHUNK = 16_384


def quantize_rows(vectors: Floats, bits: int = 8) -> tuple[NDArray[np.int8], Scales]:
    """Return integer rows (n, width) and scales (n,) whose product approximates ``vectors``.

    With 8 bits the scale (float32) maps the largest magnitude of a row to 127, so no entry is off
    by more than half a scale. With 6 and 4 bits, 26 scales are tried for each row, from the one
    that clips nothing down to half of it, and the one with the smallest squared error is used:
    clipping the largest entries can make all others more precise. These scales are stored as
    float16, unless one is too large for that.

    Raises ValueError if ``bits`` is not 8, 6 or 4.
    """
    if bits not in MAX_ENTRY:
        raise ValueError(f"bits = {bits!r}, expected one of {', '.join(map(str, MAX_ENTRY))}")
    unclipped = np.abs(vectors).max(1, initial=0.0).astype(np.float32) / np.float32(MAX_ENTRY[bits])
    if bits == 8:
        # A row of zeros, or one too small to divide by, gets scale 1 and entries of 0.
        scale = np.where(unclipped > np.finfo(np.float32).tiny, unclipped, np.float32(1.0))
        return _round(vectors, scale, bits), scale
    dtype = scale_dtype(unclipped)
    rows, scales = np.empty(vectors.shape, np.int8), np.empty(len(vectors), dtype)
    for start in range(0, len(vectors), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        scales[chunk] = _least_squares_scale(vectors[chunk], unclipped[chunk], bits, dtype)
        rows[chunk] = _round(vectors[chunk], scales[chunk].astype(np.float32), bits)
    return rows, scales


def quantize_sparse(
    values: Floats, indptr: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int8], Scales]:
    """Round the values of sparse rows (CSR) to 8 bits: return entries (nnz,) and scales (rows,).

    Scales are float16 unless one is too large for that. No entry is off by more than half a scale.
    """
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    unclipped = np.zeros(len(indptr) - 1, np.float32)
    np.maximum.at(unclipped, row, np.abs(values) / np.float32(MAX_ENTRY[8]))
    scale = storable_scale(unclipped, scale_dtype(unclipped))
    entries = np.rint(values / scale.astype(np.float32)[row])
    return np.clip(entries, -MAX_ENTRY[8], MAX_ENTRY[8]).astype(np.int8), scale


def scale_dtype(scale: Floats) -> np.dtype[Any]:
    """Return float16 if all scales fit into it, otherwise float32."""
    return np.dtype("f2" if scale.max(initial=0.0) <= np.finfo(np.float16).max else "f4")


def storable_scale(scale: Floats, dtype: np.dtype[Any]) -> Scales:
    """Return the scales in ``dtype``, and 1 for rows of zeros.

    They are rounded up: a scale rounded down would clip the largest entry of its row.
    """
    stored: Scales = scale.astype(dtype)
    stored = np.where(stored < scale, np.nextafter(stored, dtype.type(np.inf)), stored)
    return np.where(stored > 0, stored, dtype.type(1.0))


def _least_squares_scale(
    vectors: Floats, unclipped: Floats, bits: int, dtype: np.dtype[Any]
) -> Scales:
    """Return for each row the candidate scale with the smallest squared error.

    The error is measured with the scale as it will be stored, after rounding to ``dtype``. The
    factors fall from 1, so among equal errors the scale that clips least is kept.
    """
    best = storable_scale(unclipped, dtype)
    least_error = np.full(len(vectors), np.inf, np.float32)
    for factor in _CLIP_FACTORS.astype(np.float32):
        scale = storable_scale(unclipped * factor, dtype)
        step = scale.astype(np.float32)
        difference = _round(vectors, step, bits) * step[:, None] - vectors
        error = np.einsum("ij,ij->i", difference, difference)
        best = np.where(error < least_error, scale, best)
        least_error = np.minimum(error, least_error)
    return best


def _round(vectors: Floats, scale: Floats, bits: int) -> NDArray[np.int8]:
    entries = np.rint(vectors / scale[:, None])
    rows: NDArray[np.int8] = np.clip(entries, -MAX_ENTRY[bits], MAX_ENTRY[bits]).astype(np.int8)
    return rows


def exact_limit(width: int) -> int:
    """Return the largest integer of a user vector that keeps int8 dot products exact in float32.

    float32 represents every integer below 2**24 exactly. If ``127 * limit * width`` stays below
    that, so does every partial sum: the result is exact, and the same in any order of summation.
    """
    return min(32_767, (2**24 - 1) // (127 * max(width, 1)))
