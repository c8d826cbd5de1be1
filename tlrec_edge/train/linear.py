"""Linear and counting scorers: popularity, itemCF, EASE, and the ridge from interest counts; the wide part's source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Interactions, Ints
from tlrec_edge.data.task import Task

Floats = NDArray[np.float32]


def user_item(log: Interactions, n_users: int, n_items: int) -> sp.csr_array:
    """Return the binary matrix (n_users, n_items) of who had what."""
    ones = np.ones(len(log), np.float32)
    matrix = sp.csr_array((ones, (log.user, log.item)), shape=(n_users, n_items))
    matrix.data[:] = 1.0
    return matrix


def empty(rows: int, columns: int) -> sp.csr_array:
    """Return a sparse matrix without weights."""
    none = np.zeros(0, np.int32)
    return sp.csr_array((np.zeros(0, np.float32), (none, none)), shape=(rows, columns))


def popularity(task: Task) -> Floats:
    """Count each candidate's distinct buyers in the target. Shape (C,)."""
    inside = task.train.where(task.in_target(task.train))
    return np.asarray(user_item(inside, task.n_users, task.n_items).sum(0))[task.candidates].astype(np.float32)


def item_cf(x: sp.csr_array, columns: Ints, similarity: str = "jaccard") -> sp.csr_array:
    """Weigh a history item by the buyers it shares with the candidate. Shape (items, C), float64.

    ``x`` (users, items) is binary, ``columns`` (C,) are the candidates' places in it. ``jaccard`` divides by the union
    of both items' buyers, ``cosine`` by the root of the product of their numbers; an item has no weight on itself.
    """
    by_item = x.astype(np.float64).tocsc()
    both = (by_item.T @ by_item[:, columns]).tocoo()
    count = np.asarray(by_item.sum(0)).ravel()
    one, other = count[both.row], count[columns][both.col]
    norm = {"jaccard": one + other - both.data, "cosine": np.sqrt(one * other)}[similarity]
    value = np.where(both.row == columns[both.col], 0.0, both.data / norm)
    return sp.csr_array((value, (both.row, both.col)), shape=both.shape)


def ease(x: sp.csr_array, columns: Ints, penalty: float) -> Floats:
    """Fit EASE (Steck, WWW 2019) for the candidates' columns only. Shape (items, C).

    Works in the smaller of items and users: with more items than users through the Woodbury identity
    ``(X'X + pI)^-1 = (I - X'(XX' + pI)^-1 X) / p``, which never forms an items-by-items matrix.
    """
    x = x[np.diff(x.indptr) > 0].astype(np.float64)
    place = np.arange(len(columns))
    chosen = x.tocsc()[:, columns]
    if x.shape[0] < x.shape[1]:
        kernel = (x @ x.T).toarray()
        kernel[np.diag_indices_from(kernel)] += penalty
        inverse = -(x.T @ np.linalg.solve(kernel, chosen.toarray()))
        inverse[columns, place] += 1.0
        inverse /= penalty
    else:
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += penalty
        unit = np.zeros((x.shape[1], len(columns)))
        unit[columns, place] = 1.0
        inverse = np.linalg.solve(gram, unit) if len(columns) < x.shape[1] // 2 else np.linalg.inv(gram)[:, columns]
    weights = -inverse / inverse[columns, place]
    weights[columns, place] = 0.0
    result: Floats = weights.astype(np.float32)
    return result


def keep_largest(weights: Floats, a_column: int, a_row: int) -> sp.csr_array:
    """Keep the ``a_column`` largest weights by magnitude of each column, then the ``a_row`` largest of each row."""
    kept = np.zeros(weights.shape, bool)
    size = np.abs(weights)
    top = np.argpartition(-size, min(a_column, len(size)) - 1, axis=0)[:a_column]
    np.put_along_axis(kept, top, True, axis=0)
    sparse = sp.csr_array(np.where(kept, weights, 0.0).astype(np.float32))
    for row in np.flatnonzero(np.diff(sparse.indptr) > a_row):
        values = sparse.data[sparse.indptr[row] : sparse.indptr[row + 1]]
        values[np.argsort(-np.abs(values), kind="stable")[a_row:]] = 0.0
    sparse.eliminate_zeros()
    return sparse


@dataclass(frozen=True)
class Interest:
    """``score = log1p(counts of groups) @ inward @ outward.T``: inward (G, r), outward (C, r)."""

    inward: Floats
    outward: Floats


def interest_ridge(counts: Floats, labels: Floats, penalty: float, rank: int) -> Interest:
    """Fit a ridge from log counts (users, G) to labels (users, C), cut to ``rank`` by SVD."""
    x = np.log1p(counts).astype(np.float64)
    y = labels - labels.mean(0, keepdims=True)
    x = x - x.mean(0, keepdims=True)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.linalg.solve(gram, x.T @ y)
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    root = np.sqrt(values[:rank])
    return Interest((left[:, :rank] * root).astype(np.float32), (right[:rank].T * root).astype(np.float32))


def group_counts(seen: sp.csr_array, groups: Ints, size: int) -> Floats:
    """Count the groups of the items each user had, (u, size)."""
    item, slot = np.nonzero(groups >= 0)
    member = sp.csr_array((np.ones(len(item), np.float32), (item, groups[item, slot])), shape=(len(groups), size))
    return (seen @ member).toarray().astype(np.float32)


def no_interest(candidates: int) -> Interest:
    """Return the interest part of width 0."""
    return Interest(np.zeros((0, 0), np.float32), np.zeros((candidates, 0), np.float32))
