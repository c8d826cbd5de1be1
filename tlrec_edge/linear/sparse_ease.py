"""EASE for large catalogues: a regression on the nearest items, then on all that co-occur."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tlrec_edge.linear.ease import Ease, LinearScorer, sparse_scorer, weigh_users
from tlrec_edge.linear.matrices import fits_dense, keep_largest_per_row
from tlrec_edge.linear.ranking import ALL, Columns
from tlrec_edge.types import Bools, Doubles, Floats, Ints, Longs

EXACT_EASE_LIMIT = 20_000
"""Largest matrix that exact EASE inverts, in rows: one per item, or per user if they are fewer."""
EASE_NEIGHBOURS = 20
"""Number of nearest items that a candidate is regressed on first."""
DESCENT_STEPS = 4
"""Steps in which the other items that were bought with a candidate get their weights.

Without them, candidates that share few buyers with a history tie: on a market of 3,559 candidates
that costs .03 of NDCG@10 among sampled negatives. docs/results.md compares with exact EASE.
"""
MAX_WEIGHTS = 20_000_000
"""Weights that all candidates together keep."""
WEIGHTS_PER_COLUMN = (50, 500)
"""Weights that a candidate keeps at least, whatever MAX_WEIGHTS, and at most."""
MAX_COOCCURRENCES = 200_000_000
"""Co-occurring pairs that are counted, about 8 bytes each.

If there are more, the items of the heaviest users are subsampled.
"""
SMALLEST_CURVATURE = 1e-12
BATCH_COLUMNS = 256
"""Candidates that are solved together."""
BATCH_ENTRIES = 2_000_000
"""Numbers of a batch that are in memory together, 8 bytes each and several times."""


def make_ease(x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> Ease | SparseEase:
    """Return exact EASE if it fits in memory, else a sparse approximation."""
    return (Ease if fits_exactly(x, columns) else SparseEase)(x, columns, user_power)


def fits_exactly(x: sp.csr_array, columns: Ints) -> bool:
    """Return whether exact EASE of these columns fits: the matrix it inverts, and its weights."""
    active_users = int(np.count_nonzero(np.diff(x.indptr)))
    bought_items = len(np.unique(x.indices))
    size = min(active_users, bought_items)
    return size <= EXACT_EASE_LIMIT and fits_dense(x.shape[1], len(columns))


class SparseEase:
    """EASE of each candidate on the items that were bought with it, over ``x`` (users, items).

    A column of EASE is the ridge regression of an item on all others. Here it is first solved on
    the set S of the items with the highest cosine to the candidate c: ``(G_SS + pI) b = G_Sc``,
    with the co-occurrence counts ``G = X'X``. This solves one small linear system per candidate,
    instead of inverting one matrix over all items (compare Steck, NeurIPS 2019). Then a few steps
    of steepest descent, preconditioned by the diagonal, improve the weights of all items that were
    bought with the candidate.
    """

    def __init__(self, x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> None:
        self.columns = columns
        x = subsample_rows(weigh_users(x, user_power), MAX_COOCCURRENCES).astype(np.float32)
        self._x, self._buyers = x, sp.csr_array(x.T)
        self.gram: sp.csr_array = self._buyers @ x
        self.gram.sort_indices()
        # The buyers of all items that were bought with an item: what its descent reads.
        pairs = np.ones(self.gram.nnz, bool), self.gram.indices, self.gram.indptr
        self._cost = sp.csr_array(pairs, shape=self.gram.shape) @ np.diff(self._buyers.indptr)
        self.squared_norm = self.gram.diagonal()

    def weights(self, penalty: float, needed: Columns = ALL) -> sp.csc_array:
        """Return the item-item weights (items, C).

        Only the columns ``needed`` (rising indices into the candidates) are solved; others are 0.
        """
        indices = np.arange(len(self.columns), dtype=np.int32)[needed]
        affordable = MAX_WEIGHTS // max(len(self.columns), 1)
        max_weights = int(np.clip(affordable, *WEIGHTS_PER_COLUMN))
        size = np.zeros(len(self.columns), np.int64)
        data, item = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
        for batch in self._batches(indices):
            weights = keep_largest_per_row(self._solve(self.columns[batch], penalty), max_weights)
            size[batch] = np.diff(weights.indptr)
            data.append(weights.data)
            item.append(weights.indices)
        start = np.append(0, np.cumsum(size))
        shape = len(self.squared_norm), len(self.columns)
        return sp.csc_array((np.concatenate(data), np.concatenate(item), start), shape=shape)

    def scorer(self, penalty: float, needed: Columns = ALL) -> LinearScorer:
        """Solve the columns ``needed`` once, and return a scorer that uses their weights."""
        return sparse_scorer(self.weights(penalty, needed).tocsr())

    def _batches(self, indices: Ints) -> list[Ints]:
        """Split candidates into batches of at most BATCH_COLUMNS, of BATCH_ENTRIES in all."""
        n_users, _ = self._x.shape
        cost = self._cost[self.columns[indices]] + n_users
        by_cost = np.cumsum(cost) // BATCH_ENTRIES
        by_columns = np.arange(len(indices)) // BATCH_COLUMNS
        return np.split(indices, np.flatnonzero(np.diff(by_cost) | np.diff(by_columns)) + 1)

    def _solve(self, columns: Ints, penalty: float) -> sp.csr_array:
        """Return the weights of each column's items. Shape (batch, items)."""
        shared = self.gram[columns]
        shared.data[shared.indices == columns[_row_of_entry(shared)]] = 0.0
        shared.eliminate_zeros()
        weights = shared.copy()
        weights.data = self._regress_on_nearest(columns, shared, penalty)
        return self._descend(weights, shared, penalty)

    def _regress_on_nearest(self, columns: Ints, shared: sp.csr_array, penalty: float) -> Doubles:
        """Return the weights of the nearest items, one per entry of ``shared``; others are 0."""
        near = shared.copy()
        # The cosine needs no division by the column's own norm: it changes no order within a row.
        near.data = near.data / np.sqrt(self.squared_norm[near.indices])
        neighbours, present = top_neighbours(near, columns, EASE_NEIGHBOURS)
        gram = self._neighbour_grams(neighbours, present)
        diagonal = np.arange(EASE_NEIGHBOURS)
        gram[:, diagonal, diagonal] += penalty
        target = np.zeros((len(columns), EASE_NEIGHBOURS, 1))
        row, _ = np.nonzero(present)
        target[present, 0] = self._cooccurrences(columns[row], neighbours[present])
        key = _row_of_entry(shared) * shared.shape[1] + shared.indices
        entry = np.searchsorted(key, row * shared.shape[1] + neighbours[present])
        weights = np.zeros(shared.nnz)
        weights[entry] = np.linalg.solve(gram, target)[present, 0]
        return weights

    def _descend(self, weights: sp.csr_array, shared: sp.csr_array, penalty: float) -> sp.csr_array:
        """Improve the ``weights`` (batch, items), which has the entries of ``shared``.

        Each row takes the step that is best for it in the direction z of its residual r over the
        diagonal: ``z'r / z'(G + pI)z``.
        """
        n_rows, n_users = len(shared.indptr) - 1, self._x.shape[0]
        row, weight = _row_of_entry(shared), weights.data.astype(np.float32)
        bought = self._buyers[shared.indices]  # by entry, in a matrix (batch, users)
        offset = np.repeat(row * n_users, np.diff(bought.indptr)).astype(np.int32)
        parts = bought.data, bought.indices + offset, bought.indptr
        bought = sp.csr_array(parts, shape=(len(row), n_rows * n_users))
        diagonal = self.squared_norm[shared.indices] + np.float32(penalty)
        predicted = bought.T @ weight
        for _ in range(DESCENT_STEPS):
            residual = shared.data - bought @ predicted - np.float32(penalty) * weight
            direction = residual / diagonal
            change = bought.T @ direction
            curvature = np.square(change).reshape(n_rows, n_users).sum(1)
            curvature += penalty * np.bincount(row, direction**2, n_rows)
            gain = np.bincount(row, residual * direction, n_rows)
            step = (gain / np.maximum(curvature, SMALLEST_CURVATURE)).astype(np.float32)
            weight += step[row] * direction
            predicted += np.repeat(step, n_users) * change
        return sp.csr_array((weight, shared.indices, shared.indptr), shape=shared.shape)

    def _neighbour_grams(self, neighbours: Ints, present: Bools) -> Doubles:
        """Return the Gram matrices G_SS (batch, k, k); absent neighbours have zero rows."""
        # G is symmetric and reading it is the slow part: look up one triangle and mirror it.
        i, j = np.triu_indices(EASE_NEIGHBOURS)
        both = present[:, i] & present[:, j]  # (batch, pairs)
        value = np.zeros(both.shape, np.float32)
        value[both] = self._cooccurrences(neighbours[:, i][both], neighbours[:, j][both])
        gram = np.zeros((len(neighbours), EASE_NEIGHBOURS, EASE_NEIGHBOURS))
        gram[:, i, j] = gram[:, j, i] = value
        return gram

    def _cooccurrences(self, first: Ints, second: Ints) -> Floats:
        """Return the co-occurrence counts of pairs of items (n,)."""
        if not len(first):  # scipy returns a sparse array for no pairs
            return np.zeros(0, np.float32)
        return np.asarray(self.gram[first, second])


def _row_of_entry(matrix: sp.csr_array) -> Longs:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def subsample_rows(x: sp.csr_array, max_pairs: int) -> sp.csr_array:
    """Return ``x`` with its longest rows cut, so that X'X adds up about ``max_pairs`` pairs.

    A user of n items adds n^2 pairs, so a few heavy users decide the cost of X'X. The entries that
    they keep are drawn at random, with a fixed seed.
    """
    size = np.diff(x.indptr).astype(np.int64)
    largest = limit = int(size.max(initial=1))
    while limit > 1 and (np.minimum(size, limit) ** 2).sum() > max_pairs:
        limit = limit * 3 // 4
    if limit == largest:
        return x
    row = np.repeat(np.arange(len(size)), size)
    order = np.lexsort((np.random.default_rng(0).random(len(row)), row))
    keep = np.sort(order[np.arange(len(row)) - x.indptr[row] < limit])
    start = np.append(0, np.cumsum(np.minimum(size, limit)))
    return sp.csr_array((x.data[keep], x.indices[keep], start), shape=x.shape)


def top_neighbours(similarity: sp.csr_array, self_columns: Ints, count: int) -> tuple[Ints, Bools]:
    """Return the columns of each row's ``count`` largest entries, and a mask of those that exist.

    Both are (rows, count). ``self_columns`` (rows,) is the column of each row's own item, which is
    no neighbour of itself.
    """
    similarity.sort_indices()
    row = np.repeat(np.arange(similarity.shape[0]), np.diff(similarity.indptr))
    is_itself = similarity.indices == self_columns[row]
    order = np.lexsort((np.where(is_itself, np.inf, -similarity.data), row))
    rank = np.arange(len(row)) - similarity.indptr[row]  # rows stay together in ``order``
    chosen = (rank < count) & ~is_itself[order]
    neighbours = np.zeros((similarity.shape[0], count), np.int32)
    present = np.zeros(neighbours.shape, bool)
    neighbours[row[chosen], rank[chosen]] = similarity.indices[order][chosen]
    present[row[chosen], rank[chosen]] = True
    return neighbours, present
