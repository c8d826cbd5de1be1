"""The arrays of a model as a bundle stores them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import Storage, column_dtype
from tlrec_edge.core.packing import BITS, RowFormat
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.model import numpy_copy
from tlrec_edge.train.quantized import QuantizedTable, QuantizedTables

Arrays = dict[str, NDArray[Any]]
_KIND = {bits: kind for kind, bits in BITS.items()}


def storage(model: EdgeModel) -> Storage:
    """Return the number format of each table."""
    wide = "float32" if model.quantized_wide is None else "int8"
    if model.tables is None:
        return Storage("float32", "float32", "float32", "float32", wide)
    kinds = {name: _KIND[table.bits] for name, table in vars(model.tables).items()}
    return Storage(**kinds, wide=wide)


def part_weights(model: EdgeModel) -> dict[str, float]:
    """Return the manifest's ``weights``: what the runtime multiplies with the stored parts."""
    # In float32 the sparse weights are stored as a sum that already contains both part weights.
    wide = 1.0 if model.quantized_wide is None else model.score_weights.wide
    return {
        "deep": model.score_weights.two_tower,
        "wide": wide,
        "rest": model.score_weights.residual,
    }


def stored_arrays(model: EdgeModel) -> Arrays:
    """Return every array that scoring reads, by its name in the bundle.

    If all tables have one format (``Storage.uniform``), their scales contain the weights of the
    parts. Otherwise the scales are the tables' own, and the manifest holds ``part_weights``.
    """
    kinds, weights, net = storage(model), model.score_weights, model.net
    tables = model.tables or _float32_tables(model)
    width, low_rank = net.config.width, model.interest.rank + model.residual.rank
    candidate_rows = RowFormat((kinds.candidate, width), (kinds.taste, low_rank))
    candidate_scale = tables.candidate.scale
    if kinds.uniform:
        candidate_scale = candidate_scale * np.float32(weights.two_tower)
    arrays: Arrays = {
        "history_rows": RowFormat((kinds.history, width)).join([tables.history.rows]),
        "history_scale": tables.history.scale,
        "candidate_rows": candidate_rows.join([tables.candidate.rows, tables.taste.rows]),
        "candidate_scale": np.stack([candidate_scale, tables.taste.scale], 1),
        "candidate_bias": (model.bias * np.float32(weights.bias)).astype(np.float32),
        "groups": model.groups,
        # Interest and residual share one scale per candidate, so the weight of interest has to be
        # on the user's side.
        "interest_in": np.pad(
            model.interest.input_factors * np.float32(weights.interest),
            ((0, 0), (0, model.residual.rank)),
        ),
        "position_bias": numpy_copy(net.position_bias),
        "event_bias": numpy_copy(net.event_bias),
        "age_bias": numpy_copy(net.age_bias),
    }
    return arrays | _residual(model, tables, kinds) | _wide(model)


def _residual(model: EdgeModel, tables: QuantizedTables, kinds: Storage) -> Arrays:
    """Return the input factors of the residual; nothing if the residual scores nothing."""
    weight = model.score_weights.residual
    if not model.residual.rank or not weight:
        return {}
    rows, scale, _ = tables.taste_in
    return {
        "taste_rows": RowFormat((kinds.taste_in, model.residual.rank)).join([rows]),
        "taste_scale": scale * np.float32(weight) if kinds.uniform else scale,
    }


def _wide(model: EdgeModel) -> Arrays:
    """Return the item-item weights: quantized with their scale, or float32 and weighted."""
    quantized = model.quantized_wide
    if quantized is None:
        wide = model.served_wide
        wide.eliminate_zeros()
        wide.sort_indices()
        columns = wide.indices.astype(np.int32)
        values: Arrays = {"wide_values": wide.data.astype(np.float32)}
    else:
        wide = model.wide
        columns = wide.indices.astype(column_dtype(model.candidates))
        values = {"wide_values": quantized.entries, "wide_scale": quantized.scale}
    return {"wide_indptr": wide.indptr.astype(np.int64), "wide_columns": columns, **values}


def _float32_tables(model: EdgeModel) -> QuantizedTables:
    """Return float32 vectors as tables whose scales are 1."""
    return QuantizedTables(
        history=_float32_table(model.history_vectors),
        candidate=_float32_table(model.candidate_vectors),
        taste_in=_float32_table(model.residual_in),
        taste=_float32_table(model.low_rank_vectors),
    )


def _float32_table(vectors: NDArray[np.float32]) -> QuantizedTable:
    ones = np.ones(len(vectors), np.float32)
    return QuantizedTable(vectors, ones)  # type: ignore[arg-type]  # float32 instead of int8
