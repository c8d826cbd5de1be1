"""Linear and counting scorers: popularity, itemCF, EASE, and the ridge from interest counts; the wide part's source."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.linear.low_rank import LowRankFactors, truncated_svd
from tlrec_edge.linear.ranking import ALL, Columns
from tlrec_edge.types import Floats, Ints


class LinearScorer(Protocol):
    """From histories (u, items) to the scores (u, columns) of the candidates, or of some of their columns."""

    def __call__(self, history: sp.csr_array, columns: Columns = ALL) -> Floats: ...


DAY = 86_400
EXACT_EASE_LIMIT = 20_000
"""EASE is exact up to so many items (or users, where they are fewer); beyond, it rests on each candidate's nearest."""
DENSE_MATRIX_LIMIT = EXACT_EASE_LIMIT**2
"""Entries of the largest dense matrix that is formed."""
ITEMCF_NEIGHBOURS = 1000
"""Items that weigh for a candidate in itemCF of large data."""


def user_item(log: Interactions, n_users: int, n_items: int) -> sp.csr_array:
    """Return the binary matrix (n_users, n_items) of who had what."""
    ones = np.ones(len(log), np.float32)
    matrix = sp.csr_array((ones, (log.user, log.item)), shape=(n_users, n_items))
    matrix.data[:] = 1.0
    return matrix


def empty_matrix(rows: int, columns: int) -> sp.csr_array:
    """Return a sparse matrix without weights."""
    none = np.zeros(0, np.int32)
    return sp.csr_array((np.zeros(0, np.float32), (none, none)), shape=(rows, columns))


def popularity(task: Task, half_life: float | None = None) -> Floats:
    """Count each candidate's distinct buyers in the target. Shape (C,).

    With ``half_life`` (days) a buyer weighs half for each one that passed from their last purchase of the item to the
    end of the training part.
    """
    target_log = task.train.select(task.in_target(task.train))
    pair = target_log.user.astype(np.int64) * task.n_items + target_log.item
    last = (
        len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]
    )  # rows of a user rise in time
    age = (target_log.time.max(initial=0) - target_log.time[last]) / DAY
    weight = np.ones(len(last)) if half_life is None else 0.5 ** (age / half_life)
    return np.bincount(target_log.item[last], weight, task.n_items)[task.candidates].astype(
        np.float32
    )


def item_cf(x: sp.csr_array, columns: Ints, similarity: str = "jaccard") -> sp.csr_array:
    """Weigh a history item by the buyers it shares with the candidate. Shape (items, C), float64.

    ``x`` (users, items) is binary, ``columns`` (C,) are the candidates' places in it. ``jaccard`` divides by the union
    of both items' buyers, ``cosine`` by the root of the product of their numbers; an item has no weight on itself.
    Beyond DENSE_MATRIX_LIMIT items by candidates only the ITEMCF_NEIGHBOURS most similar items of a candidate keep a weight.
    """
    by_item = x.astype(np.float64).tocsc()
    if is_small(x.shape[1], len(columns)):
        return _similar(by_item, columns, similarity)
    parts = [
        columns[first : first + EXACT_EASE_LIMIT]
        for first in range(0, len(columns), EXACT_EASE_LIMIT)
    ]
    kept = [
        keep_largest_per_row(sp.csr_array(_similar(by_item, part, similarity).T), ITEMCF_NEIGHBOURS)
        for part in parts
    ]
    return sp.csr_array(sp.vstack([part.astype(np.float32) for part in kept], format="csr").T)


def _similar(by_item: sp.csc_array, columns: Ints, similarity: str) -> sp.csr_array:
    both = (by_item.T @ by_item[:, columns]).tocoo()
    count = np.asarray(by_item.sum(0)).ravel()
    one, other = count[both.row], count[columns][both.col]
    norm = {"jaccard": one + other - both.data, "cosine": np.sqrt(one * other)}[similarity]
    value = np.where(both.row == columns[both.col], 0.0, both.data / norm)
    return sp.csr_array((value, (both.row, both.col)), shape=both.shape)


def is_small(rows: int, columns: int) -> bool:
    """Say whether a matrix of this size may be formed."""
    return rows * columns <= DENSE_MATRIX_LIMIT


def weigh_users(x: sp.csr_array, power: float) -> sp.csr_array:
    """Return the rows of ``x`` (users, items) that hold anything, as float64: a user of n items weighs n^-power.

    The mean weight of an interaction stays 1.
    """
    x = x[np.diff(x.indptr) > 0].astype(np.float64)
    size = np.diff(x.indptr)
    weight = size**-power
    x.data *= np.repeat(np.sqrt(weight * len(x.data) / (weight * size).sum()), size)
    return x


class Ease:
    """EASE (Steck, WWW 2019) for the candidates' columns only, over binary ``x`` (users, items).

    Works in the smaller of items and users: with more items than users through the Woodbury identity
    ``(X'X + pI)^-1 = (I - X'(XX' + pI)^-1 X) / p``, which never forms an items-by-items matrix. With ``user_power`` a
    user of n items weighs n^-power beside one of 1 (the mean weight of an interaction stays 1), so that a few who have
    nearly everything do not decide what goes with what.
    """

    def __init__(self, x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> None:
        self.x = weigh_users(x, user_power)
        self.columns, self.place = columns, np.arange(len(columns))
        self.chosen = self.x.tocsc()[:, columns]
        self.by_user = self.x.shape[0] < self.x.shape[1]
        self.gram = (self.x @ self.x.T if self.by_user else self.x.T @ self.x).toarray()

    def weights(self, penalty: float) -> Floats:
        """Return the item-item weights (items, C), 0 from a candidate to itself."""
        if self.by_user:
            inner, own = self._solve(penalty)
            weights = (self.x.T @ inner) / (penalty * own)
        else:
            unit = np.zeros((self.x.shape[1], len(self.columns)))
            unit[self.columns, self.place] = 1.0
            inverse = np.linalg.solve(self._regular(penalty), unit)
            weights = -inverse / inverse[self.columns, self.place]
        weights[self.columns, self.place] = 0.0
        result: Floats = weights.astype(np.float32)
        return result

    def scorer(self, penalty: float, needed: Columns = ALL) -> LinearScorer:
        """Solve once and return ``history -> history @ weights`` (u, C); all columns are solved, needed or not.

        Where users are fewer than items the weights are never formed.
        """
        if not self.by_user:
            weights = self.weights(penalty)
            return lambda history, columns=ALL: np.asarray(history @ weights, np.float32)[
                :, columns
            ]
        inner, own = self._solve(penalty)

        def score(history: sp.csr_array, columns: Columns = ALL) -> Floats:
            self_weight = history[:, self.columns].toarray()  # (u, C)
            through = (history @ self.x.T) @ inner - self_weight
            return np.asarray(through / (penalty * own) + self_weight, np.float32)[:, columns]

        return score

    def _solve(self, penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ``(XX' + pI)^-1 X_c`` (users, C) and the candidates' own entries of the inverse (C,)."""
        inner = np.asarray(
            np.linalg.solve(self._regular(penalty), self.chosen.toarray()), np.float64
        )
        met = np.asarray(self.chosen.multiply(inner).sum(0), np.float64).ravel()
        return inner, (1.0 - met) / penalty

    def _regular(self, penalty: float) -> NDArray[np.float64]:
        regular: NDArray[np.float64] = self.gram.copy()
        regular[np.diag_indices_from(regular)] += penalty
        return regular


def keep_largest_per_row(weights: sp.csr_array, per_row: int) -> sp.csr_array:
    """Return the ``per_row`` largest weights by magnitude of each row."""
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((-np.abs(weights.data), row))
    kept = weights.copy()
    kept.data[order[np.arange(len(row)) - weights.indptr[row] >= per_row]] = 0.0
    kept.eliminate_zeros()
    return kept


def sparse_scorer(weights: sp.csr_array) -> LinearScorer:
    """Return the scorer of a history by item-item weights (items, C)."""
    return lambda history, columns=ALL: np.asarray(
        (history @ weights)[:, columns].toarray(), np.float32
    )


def keep_largest_per_column(weights: Floats | sp.csc_array, most: int) -> sp.csr_array:
    """Keep the ``most`` largest weights by magnitude of each column."""
    if isinstance(weights, sp.csc_array):
        return sp.csr_array(keep_largest_per_row(sp.csr_array(weights.T), most).T)
    kept = np.zeros(weights.shape, bool)
    size = np.abs(weights)
    top = np.argpartition(-size, min(most, len(size)) - 1, axis=0)[:most]
    np.put_along_axis(kept, top, True, axis=0)
    return sp.csr_array(np.where(kept, weights, 0.0).astype(np.float32))


def sparsify_weights(weights: Floats, per_column: int, per_row: int) -> sp.csr_array:
    """Keep the ``per_column`` largest weights by magnitude of each column, then the ``per_row`` largest of each row."""
    sparse = keep_largest_per_column(weights, per_column)
    for row in np.flatnonzero(np.diff(sparse.indptr) > per_row):
        values = sparse.data[sparse.indptr[row] : sparse.indptr[row + 1]]
        values[np.argsort(-np.abs(values), kind="stable")[per_row:]] = 0.0
    sparse.eliminate_zeros()
    return sparse


def split_weights(
    weights: Floats, per_column: int, per_row: int, rank: int
) -> tuple[sp.csr_array, LowRankFactors]:
    """Split item-item weights (N, C) into the largest, kept as they are, and a low-rank residual.

    The largest say what goes with what; the many small ones say what kind of shopper this is, and a few directions
    hold most of that.
    """
    sparse = sparsify_weights(weights, per_column, per_row)
    residual = weights.copy()
    residual[sparse.nonzero()] = 0.0
    rank = min(rank, *residual.shape)
    if not rank or not residual.any():
        return sparse, LowRankFactors.none(*weights.shape)
    return sparse, LowRankFactors.of(*truncated_svd(residual, rank))


def interest_ridge(counts: Floats, labels: Floats, penalty: float, rank: int) -> LowRankFactors:
    """Fit a ridge from log counts (users, G) to labels (users, C), cut to ``rank`` by SVD: ``input_factors`` (G, r)."""
    x = np.log1p(counts).astype(np.float64)
    y = labels - labels.mean(0, keepdims=True)
    x = x - x.mean(0, keepdims=True)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.linalg.solve(gram, x.T @ y)
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    return LowRankFactors.of(left[:, :rank], values[:rank], right[:rank].T)


def sparse_ridge(
    counts: sp.csr_array, labels: sp.csr_array, penalty: float, rank: int
) -> LowRankFactors:
    """Fit ``interest_ridge`` of sparse counts (users, G) and labels (users, C) without a dense matrix of users or of C.

    Of the weights ``W = A^-1 M``, M (G, C), the left vectors are those of the small ``W W'``.
    """
    x = counts.astype(np.float64)
    x.data = np.log1p(x.data)
    mean = np.asarray(x.mean(0)).ravel()
    gram = (x.T @ x).toarray() - x.shape[0] * np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] += penalty
    both, total = (
        sp.csr_array(x.T @ labels),
        np.asarray(labels.sum(0), np.float64),
    )  # M = both - mean total'
    through = both @ total
    square = (both @ both.T).toarray() - np.outer(through, mean) - np.outer(mean, through)
    square += (total @ total) * np.outer(mean, mean)
    inverse = np.linalg.inv(gram)
    values, left = np.linalg.eigh(inverse @ square @ inverse.T)
    rank = min(rank, int((values > 1e-9 * values[-1]).sum()))
    left, values = left[:, ::-1][:, :rank], np.sqrt(values[::-1][:rank])
    back = inverse.T @ left
    right = (both.T @ back - np.outer(total, mean @ back)) / values
    return LowRankFactors.of(
        left.astype(np.float32), values.astype(np.float32), right.astype(np.float32)
    )


def group_counts(seen: sp.csr_array, groups: Ints, size: int) -> Floats:
    """Count the groups of the items each user had, (u, size)."""
    return sparse_counts(seen, groups, size).toarray().astype(np.float32)


def sparse_counts(seen: sp.csr_array, groups: Ints, size: int) -> sp.csr_array:
    """Count the groups of the items each user had, (u, size), sparse."""
    item, slot = np.nonzero(groups >= 0)
    member = sp.csr_array(
        (np.ones(len(item), np.float32), (item, groups[item, slot])), shape=(len(groups), size)
    )
    return sp.csr_array(seen @ member)
