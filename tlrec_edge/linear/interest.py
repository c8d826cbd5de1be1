"""The interest model: a ridge from a user's category counts outside the target to the candidates.

It transfers what a user likes in other domains to items of the target that share no interaction
with them.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.data.vocabulary import Vocabulary
from tlrec_edge.linear.low_rank import LowRankFactors
from tlrec_edge.linear.matrices import fits_dense, user_item
from tlrec_edge.types import Floats, Ints

MAX_CATEGORIES = 4000
"""A categorical column with more values than this gives no groups."""
MIN_SHARED_USERS = 20
"""Number of users that a ridge needs who are active both in the target and outside."""
MIN_RELATIVE_EIGENVALUE = 1e-9
"""Eigenvalues below this share of the largest are rounding errors."""


def interest_groups(dataset: Dataset, vocabulary: Vocabulary, counted: Ints) -> tuple[Ints, int]:
    """Number the values of all categorical columns.

    Return the groups (N, g) of each item, -1 for none, and the number of groups. Only items in
    ``counted`` (dataset rows) have groups; interactions with other items do not count.
    """
    columns, n_groups = [], 0
    is_counted = np.isin(vocabulary.dataset_rows, counted)
    for values in dataset.features.categorical.values():
        labels = np.array([values[row] for row in vocabulary.dataset_rows], dtype=object)
        labels = np.where(is_counted, labels, "")
        names, code = np.unique(labels.astype(str), return_inverse=True)
        if not 2 <= len(names) <= MAX_CATEGORIES:
            continue
        n_missing = 1 if names[0] == "" else 0
        columns.append(np.where(code >= n_missing, code - n_missing + n_groups, -1))
        n_groups += len(names) - n_missing
    if not columns:
        return np.full((len(vocabulary.ids), 0), -1, np.int32), 0
    return np.stack(columns, 1).astype(np.int32), n_groups


def fit_interest(
    task: Task, groups: Ints, n_groups: int, vocabulary: Vocabulary, penalty: float, rank: int
) -> LowRankFactors:
    """Fit the ridge from group counts outside the target to purchases in the target.

    It learns from the users who are active in both; with fewer than MIN_SHARED_USERS of them the
    factors have rank 0.
    """
    in_target = task.in_target(task.train)
    no_factors = LowRankFactors.none(n_groups, vocabulary.candidates)
    if not n_groups or in_target.all() or not in_target.any():
        return no_factors
    outside = task.train.select(~in_target & (vocabulary.rows[task.train.item] >= 0))
    seen = user_item(outside, task.n_users, task.n_items)[:, vocabulary.dataset_rows]
    target_log = task.train.select(in_target)
    bought = user_item(target_log, task.n_users, task.n_items)[:, task.candidates]
    shared = np.flatnonzero((np.diff(seen.indptr) > 0) & (np.diff(bought.indptr) > 0))
    if len(shared) < MIN_SHARED_USERS:
        return no_factors
    rank = min(rank, n_groups, vocabulary.candidates)
    counts = sparse_group_counts(sp.csr_array(seen[shared]), groups, n_groups)
    if fits_dense(len(shared), max(n_groups, vocabulary.candidates)):
        return interest_ridge(_dense(counts), bought[shared].toarray(), penalty, rank)
    return sparse_interest_ridge(counts, sp.csr_array(bought[shared]), penalty, rank)


def interest_ridge(counts: Floats, labels: Floats, penalty: float, rank: int) -> LowRankFactors:
    """Fit a ridge from log counts (users, G) to labels (users, C), truncated to ``rank`` by SVD.

    The input factors are (G, rank), the output factors (C, rank).
    """
    x = np.log1p(counts).astype(np.float64)
    y = labels - labels.mean(0, keepdims=True)
    x = x - x.mean(0, keepdims=True)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.linalg.solve(gram, x.T @ y)
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    return LowRankFactors.of(left[:, :rank], values[:rank], right[:rank].T)


def sparse_interest_ridge(
    counts: sp.csr_array, labels: sp.csr_array, penalty: float, rank: int
) -> LowRankFactors:
    """Fit ``interest_ridge`` of sparse counts (users, G) and labels (users, C).

    No dense (users, C) matrix is built: rank-one corrections centre the data, and the SVD of the
    weights ``W = A^-1 M`` (G, C) comes from the small matrix ``W W'`` (G, G), whose eigenvectors
    are the left singular vectors of W.
    """
    x = counts.astype(np.float64)
    x.data = np.log1p(x.data)
    mean = np.asarray(x.mean(0)).ravel()
    # A = (X - 1 m')'(X - 1 m') + pI = X'X - n m m' + pI
    gram = (x.T @ x).toarray() - x.shape[0] * np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = np.linalg.inv(gram)
    # M = X'Y - m t', with the column sums t of Y; so M M' = S S' - S t m' - m t'S' + (t't) m m'.
    cross, total = sp.csr_array(x.T @ labels), np.asarray(labels.sum(0), np.float64)
    cross_total = cross @ total
    square = (cross @ cross.T).toarray() - np.outer(cross_total, mean) - np.outer(mean, cross_total)
    square += (total @ total) * np.outer(mean, mean)
    values, left = np.linalg.eigh(inverse @ square @ inverse.T)
    rank = min(rank, int((values > MIN_RELATIVE_EIGENVALUE * values[-1]).sum()))
    left, values = left[:, ::-1][:, :rank], np.sqrt(values[::-1][:rank])
    # The right vectors are W' U / s = M' (A^-T U) / s.
    projected = inverse.T @ left
    right = (cross.T @ projected - np.outer(total, mean @ projected)) / values
    return LowRankFactors.of(
        left.astype(np.float32), values.astype(np.float32), right.astype(np.float32)
    )


def group_counts(seen: sp.csr_array, groups: Ints, n_groups: int) -> Floats:
    """Count the groups of the items in each history ``seen`` (u, N). Shape (u, n_groups)."""
    return _dense(sparse_group_counts(seen, groups, n_groups))


def sparse_group_counts(seen: sp.csr_array, groups: Ints, n_groups: int) -> sp.csr_array:
    """Return ``group_counts`` as a sparse matrix."""
    item, slot = np.nonzero(groups >= 0)
    ones = np.ones(len(item), np.float32)
    membership = sp.csr_array((ones, (item, groups[item, slot])), shape=(len(groups), n_groups))
    return sp.csr_array(seen @ membership)


def _dense(counts: sp.csr_array) -> Floats:
    dense: Floats = counts.toarray().astype(np.float32)
    return dense
