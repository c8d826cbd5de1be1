"""Quantize tables, with one scale per row: item vectors to 8 or 4 bits, item-item weights to 8."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from tlrec_edge.core.packing import BITS, WRITTEN
from tlrec_edge.core.rowwise import quantize_rows, quantize_sparse
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.quantized import QuantizedTable, QuantizedTables, QuantizedWeights
from tlrec_edge.types import Floats

_BITS = tuple(BITS[kind] for kind in WRITTEN if kind in BITS)


@dataclass(frozen=True)
class TableBits:
    """Bits per entry of each table, 8 or 4.

    Attributes:
        history: the vectors that the encoder reads.
        candidate: the vectors that the user vector is compared with.
        taste_in: the history side of the low-rank residual.
        taste: the candidate side of the low-rank parts.
    """

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
    """Return the model with its item tables in 8 or 4 bits: one number for all, or one per table.

    The tables are quantized from the network's float vectors, even if the model has quantized
    tables already. ``core.rowwise.quantize_rows`` bounds the rounding error of an entry. Raises
    ValueError if ``bits`` has another value.
    """
    if not isinstance(bits, TableBits):
        bits = TableBits(bits, bits, bits, bits)
    unquantized = replace(model, tables=None)
    tables = QuantizedTables(
        _quantize(unquantized.history_vectors, bits.history),
        _quantize(unquantized.candidate_vectors, bits.candidate),
        _quantize(unquantized.residual_in, bits.taste_in),
        _quantize(unquantized.low_rank_vectors, bits.taste),
    )
    return replace(model, tables=tables)


def _quantize(vectors: Floats, bits: int) -> QuantizedTable:
    return QuantizedTable(*quantize_rows(vectors, bits), bits)


def quantize_wide(model: EdgeModel) -> EdgeModel:
    """Return the model with its item-item weights in int8, with one scale per history item.

    The weights of all domains and those of the target alone are first multiplied by their score
    weights and added up, so that a request reads one matrix: ``wide`` with weight 1. A weight is
    off by at most half a step of its row, 1/254 of the row's largest weight. Weights that round to
    0 are dropped.
    """
    served = model.served_wide
    served.sort_indices()
    entries, scale = quantize_sparse(served.data, served.indptr)
    n_rows = served.shape[0]
    row = np.repeat(np.arange(n_rows), np.diff(served.indptr))
    nonzero = entries != 0
    row_lengths = np.bincount(row[nonzero], minlength=n_rows)
    indptr = np.concatenate([[0], np.cumsum(row_lengths)]).astype(np.int64)
    weights = QuantizedWeights(entries[nonzero], scale)
    data, columns = weights.data(indptr), served.indices[nonzero]
    wide = sp.csr_array((data, columns, indptr), shape=served.shape)
    empty = sp.csr_array((data[:0], columns[:0], np.zeros_like(indptr)), shape=served.shape)
    return replace(
        model,
        wide=wide,
        target_wide=empty,
        score_weights=replace(model.score_weights, wide=1.0, target_wide=0.0),
        quantized_wide=weights,
    )
