"""Row-wise int8 tables: every item vector has a scale of its own (arXiv 1911.02079)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.train.artifact import EdgeModel, RowTable, Tables


def quantize_rows(vectors: NDArray[np.float32]) -> RowTable:
    """Round each row to -127..127 by its largest magnitude; the error of an entry is at most half the row's scale."""
    scale = np.abs(vectors).max(1, initial=0.0).astype(np.float32) / np.float32(127.0)
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1.0))  # zero, or too small to divide by
    rows = np.clip(np.rint(vectors / scale[:, None]), -127, 127).astype(np.int8)
    return RowTable(rows, scale)


def quantize_tables(model: EdgeModel) -> EdgeModel:
    """Return the model with its three item tables in int8."""
    plain = replace(model, tables=None)
    return replace(
        model,
        tables=Tables(
            quantize_rows(plain.history_vectors),
            quantize_rows(plain.candidate_vectors),
            quantize_rows(plain.interest_vectors),
        ),
    )
