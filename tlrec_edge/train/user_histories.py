"""The histories of users, in the item rows of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.linear.matrices import user_item
from tlrec_edge.types import Bools, Ints, Longs

MAX_HISTORY = 4096
"""Distinct items of a user that item-item weights and interest read: the most recent ones."""


@dataclass(frozen=True)
class UserHistories:
    """Interactions of users with the items that a model knows.

    Attributes:
        log: The interactions, sorted by user and time.
        rows: The model's row of every item of the dataset, -1 for an item it does not know.
        start: Position in ``log`` of each user's first interaction, then its length, (users + 1,).
        matrix: 1 for each distinct item of a user, (users, N).
    """

    log: Interactions
    rows: Ints
    start: Longs
    matrix: sp.csr_array

    @classmethod
    def of(cls, log: Interactions, rows: Ints, users: int, items: int) -> UserHistories:
        """Index a log of ``users`` users by user, for a model of ``items`` items."""
        known = log.select(rows[log.item] >= 0)
        start = np.searchsorted(known.user, np.arange(users + 1)).astype(np.int64)
        recent = known.select(_recent_distinct(known))
        matrix = user_item(replace(recent, item=rows[recent.item]), users, items)
        return cls(known, rows, start, matrix)

    def length(self, users: Ints) -> Longs:
        """Return the number of interactions of each user."""
        return self.start[users + 1] - self.start[users]


def _recent_distinct(log: Interactions) -> Bools:
    """Mark each user's MAX_HISTORY most recent distinct items, by their last occurrence."""
    pair = log.user.astype(np.int64) * (int(log.item.max(initial=0)) + 1) + log.item
    # np.unique returns first occurrences, so the log is read backwards.
    _, from_end = np.unique(pair[::-1], return_index=True)
    is_last = np.zeros(len(log), bool)
    is_last[len(log) - 1 - from_end] = True
    position = np.flatnonzero(is_last)
    user = log.user[position]
    # 1 for a user's most recent item, 2 for the one before, and so on.
    recency = np.searchsorted(user, user, side="right") - np.arange(len(user))
    is_last[position[recency > MAX_HISTORY]] = False
    return is_last
