"""Sparse user-item matrices, and matrices trimmed to their largest entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.types import Floats, Ints

DENSE_MATRIX_LIMIT = 20_000**2
"""Largest number of entries in a dense matrix (1.6 GB in single precision)."""
COLUMNS_PER_CHUNK = 256
"""Columns of a dense matrix that are trimmed together."""


@dataclass(frozen=True)
class InteractionMatrices:
    """Binary matrices (users, N) over the N item rows of a vocabulary.

    Attributes:
        train: what a model may learn from.
        history: what the users of the evaluation queries did before.
        columns: (C,) the item rows of the task's candidates.
    """

    train: sp.csr_array
    history: sp.csr_array
    columns: Ints

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The arrays that hold all of the matrices."""
        train, history = self.train, self.history
        return train.indptr, train.indices, history.indptr, history.indices, self.columns

    @classmethod
    def of(cls, task: Task, rows: Ints | None = None) -> InteractionMatrices:
        """Build the matrices of a task.

        ``rows`` maps the dataset's items to item rows, -1 for items that are left out. Without it
        every item of the dataset is an item row.
        """
        rows = np.arange(task.n_items, dtype=np.int32) if rows is None else rows
        n_rows = int(rows.max()) + 1

        def matrix(log: Interactions) -> sp.csr_array:
            known = log.select(rows[log.item] >= 0)
            return user_item(replace(known, item=rows[known.item]), task.n_users, n_rows)

        return cls(matrix(task.train), matrix(task.history), rows[task.candidates])


def user_item(log: Interactions, n_users: int, n_items: int) -> sp.csr_array:
    """Return the binary matrix (n_users, n_items) of the pairs in the log."""
    ones = np.ones(len(log), np.float32)
    matrix = sp.csr_array((ones, (log.user, log.item)), shape=(n_users, n_items))
    matrix.data[:] = 1.0  # repeated pairs were summed
    return matrix


def steps_from_end(log: Interactions, n_users: int, n_items: int) -> sp.csr_array:
    """Return how far each item is from the end of its user's log, 1 for the last row.

    An item that occurs several times counts as at its last time. Shape (n_users, n_items).
    """
    pair = log.user.astype(np.int64) * n_items + log.item
    # A user's rows are in order of time, so the first of a pair from the end is its last.
    last = len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]
    step = np.searchsorted(log.user, log.user[last], side="right") - last
    parts = step.astype(np.float64), (log.user[last], log.item[last])
    return sp.csr_array(parts, shape=(n_users, n_items))


def faded_history(task: Task, decay: float) -> sp.csr_array:
    """Return the histories (users, items): 1 for a user's last row, ``decay`` for the one before.

    An item that occurs several times counts as at its last time.
    """
    history = steps_from_end(task.history, task.n_users, task.n_items)
    history.data = (decay ** (history.data - 1.0)).astype(np.float32)
    history.eliminate_zeros()
    return history


def empty_matrix(rows: int, columns: int) -> sp.csr_array:
    """Return a sparse matrix without entries."""
    none = np.zeros(0, np.int32)
    return sp.csr_array((np.zeros(0, np.float32), (none, none)), shape=(rows, columns))


def fits_dense(rows: int, columns: int) -> bool:
    """Return whether a dense matrix of this shape may be built."""
    return rows * columns <= DENSE_MATRIX_LIMIT


def keep_largest_per_row(weights: sp.csr_array, per_row: int) -> sp.csr_array:
    """Keep the ``per_row`` largest entries by magnitude of each row."""
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((-np.abs(weights.data), row))
    rank = np.arange(len(row)) - weights.indptr[row]  # rows stay together in ``order``
    trimmed = weights.copy()
    trimmed.data[order[rank >= per_row]] = 0.0
    trimmed.eliminate_zeros()
    return trimmed


def keep_largest_per_column(weights: Floats | sp.csc_array, per_column: int) -> sp.csr_array:
    """Keep the ``per_column`` largest entries by magnitude of each column."""
    if isinstance(weights, sp.csc_array):
        return sp.csr_array(keep_largest_per_row(sp.csr_array(weights.T), per_column).T)
    last = min(per_column, len(weights)) - 1
    parts = []
    for first in range(0, weights.shape[1], COLUMNS_PER_CHUNK):
        rows = np.ascontiguousarray(weights[:, first : first + COLUMNS_PER_CHUNK].T, np.float32)
        top = np.sort(np.argpartition(-np.abs(rows), last)[:, :per_column])
        start = np.arange(len(rows) + 1) * top.shape[1]
        largest = np.take_along_axis(rows, top, axis=1).ravel()
        parts.append(sp.csr_array((largest, top.ravel(), start), shape=rows.shape))
    trimmed = sp.csr_array(sp.vstack(parts, format="csr").T)
    trimmed.eliminate_zeros()
    return trimmed
