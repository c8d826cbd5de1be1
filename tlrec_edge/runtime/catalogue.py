"""All that a Recommender knows of its items, with one set of added ones."""

from __future__ import annotations

from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.runtime.added_items import AddedItems
from tlrec_edge.runtime.history_vectors import HistoryVectors
from tlrec_edge.runtime.item_table import ItemTable
from tlrec_edge.runtime.scorer import Indexes, Scorer


class Catalogue:
    """The items of one bundle and one set of added items.

    Adding items makes a new catalogue, so a request that has begun never sees half of them.
    """

    def __init__(
        self, bundle: Bundle, *, index: IdIndex, indexes: Indexes, added: AddedItems
    ) -> None:
        self._bundle, self._index, self.indexes, self.added = bundle, index, indexes, added
        self.items = ItemTable(bundle, index, added)
        self.vectors = HistoryVectors(bundle, added)
        self.scorer = Scorer(bundle, added, indexes)
        self.size = len(self.scorer)
        """The number of candidates, added items included: a request reads it."""

    @classmethod
    def open(cls, bundle: Bundle, threads: int) -> Catalogue:
        """Read a bundle's catalogue. Raises BundleError."""
        return cls(
            bundle,
            index=bundle.index("item_ids"),
            indexes=Indexes.open(bundle, threads),
            added=AddedItems.none(bundle),
        )

    def __len__(self) -> int:
        """Return the number of candidates, added items included."""
        return self.size

    def with_added(self, added: AddedItems) -> Catalogue:
        """Return this catalogue with another set of added items."""
        return Catalogue(self._bundle, index=self._index, indexes=self.indexes, added=added)
