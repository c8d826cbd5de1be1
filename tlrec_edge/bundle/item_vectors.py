"""Item vectors, read off the arrays of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.packing import RowFormat

Vectors = Callable[[int, int], NDArray[np.float64]]
"""The item vectors of candidates start..end-1, (n, D)."""


def item_vectors(row_format: RowFormat, rows: NDArray[Any], scale: NDArray[Any]) -> Vectors:
    """Return what reads the vectors that stored rows and scales stand for: the deep part beside the interest part."""

    def read(start: int, end: int) -> NDArray[np.float64]:
        at = slice(start, end)
        return np.concatenate(
            [
                row_format.values(rows[at], i) * scale[at, i, None].astype(np.float64)
                for i in (0, 1)
            ],
            1,
        )

    return read
