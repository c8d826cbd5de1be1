"""Put the candidates of a bundle in the making into another order; items known only as history stay behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Indices

Array = NDArray[np.generic]

_BY_ITEM = (
    "history_rows",
    "history_scale",
    "groups",
    "wide_scale",
    "taste_rows",
    "taste_scale",
    "item_category",
)
_BY_CANDIDATE = ("candidate_rows", "candidate_scale", "candidate_bias", "candidate_text")


def item_order(order: Indices, items: int) -> Indices:
    """Return the old row of each item (N,) for the old candidate of each new one, ``order`` (C,)."""
    return np.concatenate([order, np.arange(len(order), items)])


def reordered(
    arrays: Mapping[str, Array], order: Indices, items: int
) -> Iterator[tuple[str, Array]]:
    """Yield the arrays that change, by their names in the bundle, none a view of an old one."""
    new_position = np.empty(len(order), np.intp)
    new_position[order] = np.arange(len(order))
    rows = item_order(order, items)
    yield from _reorder_sparse("wide", arrays, rows, new_position)
    if "user_wide_indptr" in arrays:
        yield from _reorder_sparse(
            "user_wide", arrays, np.arange(len(arrays["user_wide_indptr"]) - 1), new_position
        )
    for names, at in ((_BY_ITEM, rows), (_BY_CANDIDATE, order)):
        for name in names:
            if name in arrays:
                yield name, arrays[name].take(at, axis=0)


def _reorder_sparse(
    name: str, arrays: Mapping[str, Array], rows: Indices, new_position: Indices
) -> list[tuple[str, Array]]:
    """Return sparse rows in another order, their columns renamed and rising within each row."""
    indptr, columns, values = (arrays[f"{name}_{part}"] for part in ("indptr", "columns", "values"))
    lengths = np.diff(indptr).take(rows)
    ends = lengths.cumsum()
    at = (indptr.take(rows) - ends + lengths).repeat(lengths) + np.arange(len(columns))
    renumbered = new_position.take(columns.take(at))
    within = np.lexsort((renumbered, np.arange(len(rows)).repeat(lengths)))
    return [
        (f"{name}_indptr", np.concatenate([[0], ends]).astype(indptr.dtype)),
        (f"{name}_columns", renumbered.take(within).astype(columns.dtype)),
        (f"{name}_values", values.take(at).take(within)),
    ]
