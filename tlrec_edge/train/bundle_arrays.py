"""A model's tables as a bundle stores them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import Storage, column_dtype
from tlrec_edge.core.packing import BITS, RowFormat
from tlrec_edge.train.edge_model import EdgeModel, QuantizedTable, QuantizedTables
from tlrec_edge.train.model import numpy_copy

Arrays = dict[str, NDArray[Any]]
_KIND = {bits: kind for kind, bits in BITS.items()}


def storage(model: EdgeModel) -> Storage:
    """Return what each table is stored as."""
    wide = "float32" if model.quantized_wide is None else "int8"
    if model.tables is None:
        return Storage("float32", "float32", "float32", "float32", wide)
    return Storage(
        **{name: _KIND[table.bits] for name, table in vars(model.tables).items()}, wide=wide
    )


def part_weights(model: EdgeModel) -> dict[str, float]:
    """Return the manifest's ``weights``: what the runtime multiplies parts with whose scales are stored bare."""
    # Float32 weights are stored summed, under both weights.
    wide = 1.0 if model.quantized_wide is None else model.score_weights.wide
    return {"deep": model.score_weights.deep, "wide": wide, "rest": model.score_weights.rest}


def stored_arrays(model: EdgeModel) -> Arrays:
    """Return every array that scoring reads, by its name in the bundle.

    In plain storage (``Storage.uniform``) the weights of the parts are multiplied into float32 scales; else the scales
    are the tables' own, and ``part_weights`` go into the manifest.
    """
    kinds, weights, net = storage(model), model.score_weights, model.net
    tables = model.tables or _float32_tables(model)
    two_tower, residual = (
        (np.float32(weights.deep), np.float32(weights.rest)) if kinds.uniform else (None, None)
    )
    d, r = net.config.width, model.interest.rank + model.residual.rank
    candidate = RowFormat((kinds.candidate, d), (kinds.taste, r))
    arrays: Arrays = {
        "history_rows": RowFormat((kinds.history, d)).join([tables.history.rows]),
        "history_scale": tables.history.scale,
        "candidate_rows": candidate.join([tables.candidate.rows, tables.taste.rows]),
        "candidate_scale": np.stack(
            [_scaled(tables.candidate.scale, two_tower), tables.taste.scale], 1
        ),
        "candidate_bias": (model.bias * np.float32(weights.bias)).astype(np.float32),
        "groups": model.groups,
        # The weights of the taste block stand on the user's side: its two halves share a scale on the item's.
        "interest_in": np.pad(
            model.interest.input_factors * np.float32(weights.interest),
            ((0, 0), (0, model.residual.rank)),
        ),
        "position_bias": numpy_copy(net.position_bias),
        "event_bias": numpy_copy(net.event_bias),
        "age_bias": numpy_copy(net.age_bias),
    }
    if model.residual.rank and weights.rest:
        taste = RowFormat((kinds.taste_in, model.residual.rank))
        arrays |= {
            "taste_rows": taste.join([tables.taste_in.rows]),
            "taste_scale": _scaled(tables.taste_in.scale, residual),
        }
    return arrays | _wide(model)


def _wide(model: EdgeModel) -> Arrays:
    """Return the sparse weights: bare with their scale where they are quantized, else under the weight of the part."""
    if (codes := model.quantized_wide) is not None:
        wide = model.wide
        columns = wide.indices.astype(column_dtype(model.candidates))
        values = {"wide_values": codes.entries, "wide_scale": codes.scale}
    else:
        wide = model.served_wide
        wide.eliminate_zeros()
        wide.sort_indices()
        columns, values = (
            wide.indices.astype(np.int32),
            {"wide_values": wide.data.astype(np.float32)},
        )
    return {"wide_indptr": wide.indptr.astype(np.int64), "wide_columns": columns, **values}


def _float32_tables(model: EdgeModel) -> QuantizedTables:
    """Return float32 vectors in the place of quantized rows, with scales of 1."""
    vectors = (
        model.history_vectors,
        model.candidate_vectors,
        model.residual_in,
        model.low_rank_vectors,
    )
    return QuantizedTables(
        *(QuantizedTable(table, np.ones(len(table), np.float32)) for table in vectors)
    )  # type: ignore[arg-type]


def _scaled(scale: NDArray[Any], weight: np.float32 | None) -> NDArray[Any]:
    return scale if weight is None else scale * weight
