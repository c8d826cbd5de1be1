"""EASE where items-by-items matrices have no place: each candidate rests on its nearest items alone."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.linear.ease import (
    EXACT_EASE_LIMIT,
    Ease,
    LinearScorer,
    is_small,
    sparse_scorer,
    weigh_users,
)
from tlrec_edge.linear.ranking import ALL, Columns
from tlrec_edge.types import Floats, Ints

EASE_NEIGHBOURS = 50
"""Items a candidate's weights may rest on. On Online Retail 50 of 3,943 reach .268 of exact EASE's .273 NDCG@10."""
MAX_COOCCURRENCES = 200_000_000
"""Co-occurring pairs that are counted, about 8 bytes each; with more, the heaviest users show a draw of their items."""
BATCH_COLUMNS, BATCH_ENTRIES = 256, 2_000_000
"""Columns that are solved together, and the co-occurrence counts that are sorted for them."""


def subsample_rows(x: sp.csr_array, pairs: int) -> sp.csr_array:
    """Return ``x`` with at most so many entries a row, drawn with a fixed seed, that their squares sum to ``pairs``."""
    size = np.diff(x.indptr).astype(np.int64)
    most = int(size.max(initial=1))
    while most > 1 and (np.minimum(size, most) ** 2).sum() > pairs:
        most = most * 3 // 4
    if most >= size.max(initial=1):
        return x
    row = np.repeat(np.arange(len(size)), size)
    order = np.lexsort((np.random.default_rng(0).random(len(row)), row))
    keep = np.sort(order[np.arange(len(row)) - x.indptr[row] < most])
    start = np.append(0, np.cumsum(np.minimum(size, most)))
    return sp.csr_array((x.data[keep], x.indices[keep], start), shape=x.shape)


def top_neighbours(
    near: sp.csr_array, self_columns: Ints, most: int
) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the columns of each row's largest entries but its own, (rows, most), and which of them there are."""
    near.sort_indices()
    row = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))
    order = np.lexsort((np.where(near.indices == self_columns[row], np.inf, -near.data), row))
    rank = (
        np.arange(len(row)) - near.indptr[row]
    )  # rows stay together, so places in the order are ranks
    kept = (rank < most) & (near.indices[order] != self_columns[row])
    found = np.zeros((near.shape[0], most), np.int32)
    present = np.zeros(found.shape, bool)
    found[row[kept], rank[kept]] = near.indices[order][kept]
    present[row[kept], rank[kept]] = True
    return found, present


class SparseEase:
    """EASE of each candidate from its EASE_NEIGHBOURS nearest items alone, over ``x`` (users, items).

    A column of EASE is the ridge from all other items to its own; here it is solved on the items that share most
    buyers with it, by cosine: ``(G_SS + pI) b = G_Sc`` with the co-occurrence counts G (cf. Steck, NeurIPS 2019).
    """

    def __init__(self, x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> None:
        self.columns = columns
        x = subsample_rows(weigh_users(x, user_power), MAX_COOCCURRENCES).astype(np.float32)
        self.gram: sp.csr_array = x.T.tocsr() @ x
        self.gram.sort_indices()
        self.count = self.gram.diagonal()

    def weights(self, penalty: float, needed: Columns = ALL) -> sp.csc_array:
        """Return the item-item weights (items, C); only ``needed``, rising places among the columns, are solved."""
        places = np.arange(len(self.columns), dtype=np.int32)[needed]
        size = np.zeros(len(self.columns), np.int64)
        data, item = [], []
        for part in self._batches(places):
            support, present, weight = self._solve(self.columns[part], penalty)
            size[part] = present.sum(1)
            data.append(weight[present])
            item.append(support[present])
        empty = np.zeros(0, np.float32)
        flat = np.concatenate([empty, *data]), np.concatenate([empty.astype(np.int32), *item])
        shape = len(self.count), len(self.columns)
        return sp.csc_array((*flat, np.append(0, np.cumsum(size))), shape=shape)

    def scorer(self, penalty: float, needed: Columns = ALL) -> LinearScorer:
        """Solve the columns ``needed`` once and return the scorer of a history."""
        return sparse_scorer(self.weights(penalty, needed).tocsr())

    def _batches(self, places: Ints) -> list[Ints]:
        """Split places so that a batch holds at most BATCH_COLUMNS columns and about BATCH_ENTRIES counts."""
        entries = (
            np.cumsum(np.diff(self.gram.indptr)[self.columns[places]], dtype=np.int64)
            // BATCH_ENTRIES
        )
        by_size = np.arange(len(places)) // BATCH_COLUMNS
        return np.split(places, np.flatnonzero(np.diff(entries) | np.diff(by_size)) + 1)

    def _shared(self, one: Ints, other: Ints) -> Floats:
        """Return the co-occurrence counts of pairs (n,)."""
        return (
            np.asarray(self.gram[one, other]) if len(one) else np.zeros(0, np.float32)
        )  # of none, scipy's is sparse

    def _solve(self, columns: Ints, penalty: float) -> tuple[Ints, NDArray[np.bool_], Floats]:
        near = self.gram[columns]
        near.data = near.data / np.sqrt(
            self.count[near.indices]
        )  # cosine, but for the column's own norm
        support, present = top_neighbours(near, columns, EASE_NEIGHBOURS)
        one, other = np.triu_indices(EASE_NEIGHBOURS)
        both = present[:, one] & present[:, other]  # (batch, pairs)
        value = np.zeros(both.shape, np.float32)
        value[both] = self._shared(support[:, one][both], support[:, other][both])
        gram = np.zeros((len(columns), EASE_NEIGHBOURS, EASE_NEIGHBOURS))
        gram[:, one, other] = gram[:, other, one] = value
        gram[:, np.arange(EASE_NEIGHBOURS), np.arange(EASE_NEIGHBOURS)] += penalty
        shared = np.zeros((len(columns), EASE_NEIGHBOURS, 1))
        row, _ = np.nonzero(present)
        shared[present, 0] = self._shared(columns[row], support[present])
        return support, present, np.linalg.solve(gram, shared)[:, :, 0].astype(np.float32)


def fits_exactly(x: sp.csr_array, columns: Ints) -> bool:
    """Say whether exact EASE of these columns fits: up to EXACT_EASE_LIMIT items or users, and no weights beyond EXACT_EASE_LIMIT squared."""
    return min(x.shape) <= EXACT_EASE_LIMIT and is_small(x.shape[1], len(columns))


def make_ease(x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> Ease | SparseEase:
    """Return exact EASE where it fits, else the one on nearest items."""
    return (Ease if fits_exactly(x, columns) else SparseEase)(x, columns, user_power)
