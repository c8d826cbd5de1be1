"""The ids, names and categories of items, and how they are numbered.

Rows number all items: 0..C-1 are the bundle's candidates, C..N-1 the items that occur in histories
only, and N.. those added at run time, which are candidates too. Positions number the candidates
only: 0..C-1, then the added ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.ids import ItemId, as_text
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.string_table import StringTable
from tlrec_edge.errors import ArgumentError, UnknownIdError
from tlrec_edge.runtime.added_items import AddedItems
from tlrec_edge.types import Bools, Indices

_MAX_SHOWN = 10
"""Categories that a message names."""


class ItemTable:
    """The items of one bundle and one set of added items."""

    def __init__(self, bundle: Bundle, index: IdIndex, added: AddedItems) -> None:
        self._bundle, self._index = bundle, index
        self._items, self._candidates = bundle.shape.items, bundle.shape.candidates
        self._all_candidates = self._items == self._candidates and not added
        self._ids = bundle.strings("item_ids")
        has_names = bundle.has("item_names.bytes.npy")
        self._names = bundle.strings("item_names") if has_names else self._ids
        self._added_rows, self._added_names = added.rows, added.names
        self._added_ids = tuple(added.rows)
        self._bundle_id = bundle.content_id
        self._size = self._items + len(self._added_ids)

    def __len__(self) -> int:
        """Return the number of rows: all items of the bundle, and the added ones."""
        return self._size

    def rows(self, ids: Sequence[ItemId] | NDArray[Any] | ItemRows) -> Indices:
        """Return the row of each item id, -1 if it is unknown.

        Raises ArgumentError for rows that the bundle does not have.
        """
        if isinstance(ids, ItemRows):
            if ids.bundle_id and ids.bundle_id != self._bundle_id:
                raise ArgumentError(
                    "the rows are of another bundle; make them with this one's `rows`"
                )
            if ids.max_row >= self._size:
                raise ArgumentError(
                    f"row {ids.max_row} is not in this bundle; make rows with its own `rows`"
                )
            return ids.values
        found = self._index.rows(ids).astype(np.intp)
        if self._added_ids:
            values = ids.tolist() if isinstance(ids, np.ndarray) else ids
            for at in np.flatnonzero(found < 0).tolist():
                found[at] = self._added_rows.get(as_text(values[at]), -1)
        return found

    def bound_rows(self, ids: Sequence[ItemId] | NDArray[Any] | ItemRows) -> ItemRows:
        """Return the row of each item id, for this bundle only. Raises as ``rows`` does."""
        return ItemRows(self.rows(ids), self._bundle_id)

    def positions(self, rows: Indices) -> Indices:
        """Return the candidate position of each row, -1 if it is not a candidate."""
        if self._all_candidates:
            return rows
        c, n = self._candidates, self._items
        return np.where(rows < c, rows, np.where(rows < n, -1, rows - (n - c)))

    def ids(self, positions: Indices) -> list[str]:
        """Return the ids of candidates."""
        return self._strings(self._ids, self._added_ids, positions)

    def names(self, positions: Indices) -> list[str]:
        """Return the names of candidates; their ids if the bundle has no names."""
        return self._strings(self._names, self._added_names, positions)

    def category(self, name: str) -> Bools:
        """Return which of the bundle's candidates are in a category, (C,).

        Raises UnknownIdError, which names the closest category.
        """
        if not self._bundle.has("item_category.npy"):
            raise UnknownIdError(
                f"{self._bundle.path} has no categories; export it from a dataset that has them"
            )
        table = self._bundle.strings("category_names")
        names = table.take(range(len(table)))
        if name not in names:
            close = get_close_matches(str(name), names, 1)
            hint = f"; did you mean {close[0]!r:.80}?" if close else ""
            shown = ", ".join(f"{known!r:.40}" for known in names[:_MAX_SHOWN])
            raise UnknownIdError(
                f"{name!r:.80} is not one of the {len(names)} categories{hint}; known: {shown}"
            )
        codes = self._bundle.array("item_category")[: self._candidates]
        mask: Bools = codes == names.index(name)
        return mask

    @property
    def hot_bytes(self) -> int:
        """The bytes of the cache of recently used ids."""
        return self._index.cache_bytes

    def _strings(self, base: StringTable, added: Sequence[str], positions: Indices) -> list[str]:
        if not added:
            return base.take(positions)
        c = self._candidates
        return [base[at] if at < c else added[at - c] for at in positions.tolist()]
