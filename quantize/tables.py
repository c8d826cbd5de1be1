"""Smaller tables: item vectors in 8 or 4 bits with a scale a row, item-item weights in 8."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.core.packing import BITS, WRITTEN
from tlrec_edge.core.rowwise import quantize_rows, quantize_sparse
from tlrec_edge.train.edge_model import EdgeModel, QuantizedTable, QuantizedTables, QuantizedWeights

_BITS = tuple(BITS[kind] for kind in WRITTEN if kind in BITS)


@dataclass(frozen=True)
class TableBits:
    """Bits of an entry of each table: 8 or 4."""

    history: int = 8
    candidate: int = 8
    taste_in: int = 8
    taste: int = 8

    def __post_init__(self) -> None:
        for name, bits in vars(self).items():
            if bits not in _BITS:
                raise ValueError(
                    f"{name} = {bits!r} bits, expected one of {', '.join(map(str, _BITS))}"
                )


def quantize_tables(model: EdgeModel, bits: int | TableBits = 8) -> EdgeModel:
    """Return the model with its item tables in 8 or 4 bits, a number for all four or one for each.

    Tables that were quantized before are made anew from the network's vectors. See ``rowwise.quantize_rows`` for
    how far an entry is off.
    """
    if not isinstance(bits, TableBits):
        bits = TableBits(bits, bits, bits, bits)
    plain = replace(model, tables=None)
    tables = QuantizedTables(
        _table(plain.history_vectors, bits.history),
        _table(plain.candidate_vectors, bits.candidate),
        _table(plain.residual_in, bits.taste_in),
        _table(plain.low_rank_vectors, bits.taste),
    )
    return replace(model, tables=tables)


def quantize_wide(model: EdgeModel) -> EdgeModel:
    """Return the model with its item-item weights in int8, a scale a history row.

    What is served is quantized: the two sparse parts under their weights become one, ``wide`` with weight 1. A weight
    is off by at most half its row's scale, 1/254 of the row's largest; weights that round to 0 are left out.
    """
    served = model.served_wide
    served.sort_indices()
    entries, scale = quantize_sparse(served.data, served.indptr)
    row = np.repeat(np.arange(served.shape[0]), np.diff(served.indptr))
    kept = entries != 0
    indptr = np.concatenate(
        [[0], np.cumsum(np.bincount(row[kept], minlength=served.shape[0]))]
    ).astype(np.int64)
    codes = QuantizedWeights(entries[kept], scale)
    wide = sp.csr_array((codes.data(indptr), served.indices[kept], indptr), shape=served.shape)
    nothing = sp.csr_array(
        (codes.data(indptr)[:0], served.indices[:0], np.zeros_like(indptr)), shape=served.shape
    )
    return replace(
        model,
        wide=wide,
        target_wide=nothing,
        score_weights=replace(model.score_weights, wide=1.0, own=0.0),
        quantized_wide=codes,
    )


def _table(vectors: NDArray[np.float32], bits: int) -> QuantizedTable:
    return QuantizedTable(*quantize_rows(vectors, bits), bits)
