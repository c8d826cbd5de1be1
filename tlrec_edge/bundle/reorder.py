"""Change the order of the candidates in a bundle's arrays, before the bundle is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Indices

Array = NDArray[Any]

_BY_ITEM = (
    "history_rows",
    "history_scale",
    "groups",
    "wide_scale",
    "taste_rows",
    "taste_scale",
    "item_category",
)
"""Arrays with a row per item, except item-item weights and strings."""
_BY_CANDIDATE = ("candidate_rows", "candidate_scale", "candidate_bias", "candidate_text")
"""Arrays with a row per candidate."""


def item_order(order: Indices, items: int) -> Indices:
    """Return the old row of each item (N,), given the old row of each candidate, ``order`` (C,).

    Items that only occur in histories keep their rows, after the candidates.
    """
    return np.concatenate([order, np.arange(len(order), items)])


def reordered(
    arrays: Mapping[str, Array], order: Indices, items: int
) -> Iterator[tuple[str, Array]]:
    """Yield the name and a reordered copy of every array that depends on the order.

    ``order`` (C,) holds the old row of each candidate, and ``items`` is the number of all items.
    The caller reorders the strings.
    """
    new_position = np.empty(len(order), np.intp)
    new_position[order] = np.arange(len(order))
    rows = item_order(order, items)
    yield from _reorder_sparse("wide", arrays, rows, new_position)
    if "user_wide_indptr" in arrays:
        users = np.arange(len(arrays["user_wide_indptr"]) - 1)
        yield from _reorder_sparse("user_wide", arrays, users, new_position)
    for names, old_rows in ((_BY_ITEM, rows), (_BY_CANDIDATE, order)):
        for name in names:
            if name in arrays:
                yield name, arrays[name].take(old_rows, axis=0)


def _reorder_sparse(
    name: str, arrays: Mapping[str, Array], rows: Indices, new_position: Indices
) -> list[tuple[str, Array]]:
    """Return CSR arrays with their rows in another order and their columns renumbered.

    The new columns are sorted within each row.
    """
    indptr, columns, values = (arrays[f"{name}_{part}"] for part in ("indptr", "columns", "values"))
    lengths = np.diff(indptr).take(rows)
    ends = lengths.cumsum()
    # Old position minus new position is the same for all entries of a row.
    shift = indptr.take(rows) - (ends - lengths)
    old = shift.repeat(lengths) + np.arange(len(columns))
    renumbered = new_position.take(columns.take(old))
    by_row_and_column = np.lexsort((renumbered, np.arange(len(rows)).repeat(lengths)))
    return [
        (f"{name}_indptr", np.concatenate([[0], ends]).astype(indptr.dtype)),
        (f"{name}_columns", renumbered.take(by_row_and_column).astype(columns.dtype)),
        (f"{name}_values", values.take(old).take(by_row_and_column)),
    ]
