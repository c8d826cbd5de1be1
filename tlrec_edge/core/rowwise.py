"""Row-wise quantization: every vector has a scale of its own (arXiv 1911.02079), and dot products stay exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Floats, Scales

MAX_ENTRY = {8: 127, 6: 31, 4: 7}
"""Bits of an entry -> its largest magnitude."""
_CLIP_FACTORS = np.linspace(1.0, 0.5, 26)
_CHUNK = 16_384


def quantize_rows(vectors: Floats, bits: int = 8) -> tuple[NDArray[np.int8], Scales]:
    """Round each row to whole numbers of its scale: rows (n, width) of at most MAX_ENTRY[bits], and scales (n,).

    8 bits: the largest magnitude is 127 scales (float32), so that an entry is off by at most half its row's scale.
    6 and 4 bits: the scale is the one of 26 clip factors in 0.5..1 that leaves the least squared error, rounded to
    float16 first (float32 where a vector is beyond that). An entry is off by at most half a scale, one that is
    clipped by what lies beyond the largest; a row's squared error is never above that of the scale without clipping.
    Raises ValueError for other bits.
    """
    if bits not in MAX_ENTRY:
        raise ValueError(f"bits = {bits!r}, expected one of {', '.join(map(str, MAX_ENTRY))}")
    largest = np.abs(vectors).max(1, initial=0.0).astype(np.float32) / np.float32(MAX_ENTRY[bits])
    if bits == 8:
        scale = np.where(
            largest > np.finfo(np.float32).tiny, largest, np.float32(1.0)
        )  # zero, or too small to divide
        return _round(vectors, scale, bits), scale
    dtype = scale_dtype(largest)
    rows, scales = np.empty(vectors.shape, np.int8), np.empty(len(vectors), dtype)
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        scales[part] = _least_squares_scale(vectors[part], largest[part], bits, dtype)
        rows[part] = _round(vectors[part], scales[part].astype(np.float32), bits)
    return rows, scales


def quantize_sparse(
    values: Floats, indptr: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int8], Scales]:
    """Round the entries of each sparse row (CSR) to -127..127: entries (nnz,) and scales (rows,).

    Scales are float16 where they fit. An entry is off by at most half its row's scale.
    """
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    largest = np.zeros(len(indptr) - 1, np.float32)
    np.maximum.at(largest, row, np.abs(values) / np.float32(MAX_ENTRY[8]))
    scale = storable_scale(largest, scale_dtype(largest))
    return np.clip(
        np.rint(values / scale.astype(np.float32)[row]), -MAX_ENTRY[8], MAX_ENTRY[8]
    ).astype(np.int8), scale


def scale_dtype(scale: Floats) -> np.dtype[Any]:
    """Return float16 where the scales fit into it, else float32."""
    return np.dtype("f2" if scale.max(initial=0.0) <= np.finfo(np.float16).max else "f4")


def storable_scale(scale: Floats, dtype: np.dtype[Any]) -> Scales:
    """Return scales in a dtype, rounded up so that nothing is clipped by it; 1 for that of a row of zeros."""
    stored: Scales = scale.astype(dtype)
    stored = np.where(stored < scale, np.nextafter(stored, dtype.type(np.inf)), stored)
    return np.where(stored > 0, stored, dtype.type(1.0))


def _least_squares_scale(
    vectors: Floats, largest: Floats, bits: int, dtype: np.dtype[Any]
) -> Scales:
    """Return the scale of least squared error for each row; the first of equals, which clips the least."""
    best, least_error = storable_scale(largest, dtype), np.full(len(vectors), np.inf, np.float32)
    for clip in _CLIP_FACTORS.astype(np.float32):
        scale = storable_scale(largest * clip, dtype)
        step = scale.astype(np.float32)
        difference = _round(vectors, step, bits) * step[:, None] - vectors
        error = np.einsum("ij,ij->i", difference, difference)
        best, least_error = (
            np.where(error < least_error, scale, best),
            np.minimum(error, least_error),
        )
    return best


def _round(vectors: Floats, scale: Floats, bits: int) -> NDArray[np.int8]:
    entries = np.rint(vectors / scale[:, None])
    rows: NDArray[np.int8] = np.clip(entries, -MAX_ENTRY[bits], MAX_ENTRY[bits]).astype(np.int8)
    return rows


def exact_limit(width: int) -> int:
    """Return the largest user integer for which every partial sum of an int8 dot product is exact in float32."""
    return min(32_767, (2**24 - 1) // (127 * max(width, 1)))
