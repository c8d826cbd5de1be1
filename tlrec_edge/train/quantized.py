"""Quantized tables of a model, in place of its float32 ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Floats, Scales


class QuantizedTable(NamedTuple):
    """Vectors with one scale per row: ``rows`` * ``scale``."""

    rows: NDArray[np.int8]
    """(n, width), within ``rowwise.MAX_ENTRY[bits]``. Only bundles pack entries of fewer bits."""
    scale: Scales
    """(n,), float32 or float16."""
    bits: int = 8

    def vectors(self) -> Floats:
        """Return the vectors as float32, (n, width)."""
        return self.rows.astype(np.float32) * self.scale.astype(np.float32)[:, None]


class QuantizedWeights(NamedTuple):
    """Sparse item-item weights with one scale per row."""

    entries: NDArray[np.int8]
    """(nnz,), in the order of the sparse matrix's ``data``."""
    scale: Scales
    """(N,), the scale of every history row."""

    def data(self, indptr: NDArray[np.integer[Any]]) -> Floats:
        """Return the weights as float32, (nnz,), given the row pointers of the sparse matrix."""
        scale = np.repeat(self.scale.astype(np.float32), np.diff(indptr))
        return self.entries.astype(np.float32) * scale


@dataclass(frozen=True)
class QuantizedTables:
    """The four quantized tables of a model of N items and C candidates.

    Attributes:
        history: Vectors of items in a history, (N, width).
        candidate: Vectors of candidates, (C, width).
        taste_in: Input factors of the residual item-item weights, (N, r2).
        taste: Output factors of interest and of the residual, side by side, (C, r1 + r2).
    """

    history: QuantizedTable
    candidate: QuantizedTable
    taste_in: QuantizedTable
    taste: QuantizedTable
