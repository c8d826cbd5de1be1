"""Row-wise int8 tables: every item vector has a scale of its own (arXiv 1911.02079)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.rowwise import quantize_rows
from tlrec_edge.train.artifact import EdgeModel, RowTable, Tables


def quantize_tables(model: EdgeModel) -> EdgeModel:
    """Return the model with its item tables in int8."""
    plain = replace(model, tables=None)
    return replace(
        model,
        tables=Tables(
            _table(plain.history_vectors),
            _table(plain.candidate_vectors),
            _table(plain.taste_in),
            _table(plain.taste_vectors),
        ),
    )


def _table(vectors: NDArray[np.float32]) -> RowTable:
    return RowTable(*quantize_rows(vectors))
