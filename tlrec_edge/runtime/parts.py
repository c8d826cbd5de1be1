"""What a Recommender holds while it is open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.runtime.added_items import AddedItems
from tlrec_edge.runtime.catalogue import Catalogue
from tlrec_edge.runtime.cold_items import ColdItems
from tlrec_edge.runtime.state_cache import Counters
from tlrec_edge.runtime.user_encoder import StateBuilder
from tlrec_edge.runtime.user_states import UserStates


@dataclass(frozen=True)
class Parts:
    """The parts of an open bundle, which share its mapped files.

    A call reads them once, so a thread that closes the recommender or adds items meanwhile never
    takes away half of them.
    """

    bundle: Bundle
    builder: StateBuilder
    users: UserStates
    catalogue: Catalogue
    cold: ColdItems | None = None
    """The item tower, loaded when it is first needed."""

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        counters: Counters,
        *,
        threads: int,
        unknown: str,
        deterministic: bool,
        cache: int,
        user_key: str | None,
    ) -> Self:
        """Load a bundle's graphs and tables. Raises BundleError."""
        builder = StateBuilder(bundle, threads=threads, deterministic=deterministic)
        users = UserStates(
            bundle, counters, unknown=unknown, cache=cache, builder=builder, user_key=user_key
        )
        return cls(bundle, builder, users, Catalogue.open(bundle, threads))

    def with_added(self, added: AddedItems) -> Self:
        """Return these parts with another set of added items."""
        return replace(self, catalogue=self.catalogue.with_added(added))

    def after_fork(self) -> None:
        """Replace locks and sessions in the child of a fork."""
        self.users.cache.after_fork()
        self.builder.encoder.reload()
        if self.cold is not None:
            self.cold.tower.reload()
        bound = self.catalogue.indexes.prefix_bound
        if bound is not None:
            bound.scan.reload()
