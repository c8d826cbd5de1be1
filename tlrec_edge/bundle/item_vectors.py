"""The item vectors that a bundle's arrays encode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.packing import RowFormat
from tlrec_edge.types import Doubles

Vectors = Callable[[int, int], Doubles]
"""Return the vectors (n, width) of the candidates from a start up to, but excluding, a stop."""


def item_vectors(row_format: RowFormat, rows: NDArray[Any], scale: NDArray[Any]) -> Vectors:
    """Return a reader of candidate vectors: two-tower columns, then low-rank columns.

    ``rows`` and ``scale`` are candidate_rows.npy and candidate_scale.npy.
    """

    def read(start: int, stop: int) -> Doubles:
        at = slice(start, stop)
        scales = scale[at].astype(np.float64)
        blocks = [row_format.values(rows[at], i) * scales[:, i, None] for i in (0, 1)]
        return np.concatenate(blocks, 1)

    return read
