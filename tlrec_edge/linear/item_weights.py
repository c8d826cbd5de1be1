"""The item-item weights of a model: EASE, split into a sparse matrix and a low-rank residual."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from tlrec_edge.core.result_cache import Arrays
from tlrec_edge.data.remember import remember
from tlrec_edge.data.task import Task
from tlrec_edge.linear.low_rank import LowRankFactors, truncated_svd
from tlrec_edge.linear.matrices import (
    InteractionMatrices,
    empty_matrix,
    keep_largest_per_column,
    keep_largest_per_row,
)
from tlrec_edge.linear.sparse_ease import make_ease
from tlrec_edge.types import Floats, Ints

USER_POWER = 0.25
"""``user_power`` of the weights that are served: a heavy user counts less (see ``Ease``)."""
WEIGHTS_PER_CANDIDATE = 50
"""Item-item weights that a candidate keeps by default."""
HISTORY_WEIGHTS_FACTOR = 4
"""Limit of the weights per history item, as a multiple of the limit per candidate.

A popular item has weights to most candidates; the limit bounds the work of a request.
"""


class ItemWeights(NamedTuple):
    """Item-item weights for serving."""

    sparse: sp.csr_array
    """The largest weights, (N, C)."""
    residual: LowRankFactors
    """The others, approximately."""

    def to_arrays(self) -> Arrays:
        sparse, residual = self
        return {
            "data": sparse.data,
            "indices": sparse.indices,
            "indptr": sparse.indptr,
            "input": residual.input_factors,
            "output": residual.output_factors,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        residual = LowRankFactors(arrays["input"], arrays["output"])
        shape = len(residual.input_factors), len(residual.output_factors)
        parts = arrays["data"], arrays["indices"], arrays["indptr"]
        return cls(sp.csr_array(parts, shape=shape), residual)


def fit_item_weights(
    task: Task, data: InteractionMatrices, penalty: float, max_weights: int, rank: int
) -> ItemWeights:
    """Fit EASE on the task's matrices and split it for serving.

    A candidate keeps ``max_weights`` weights. Sparse EASE has no residual.
    """
    return remember(
        task,
        "fit_item_weights",
        (*data.arrays, penalty, max_weights, rank),
        lambda: _fit_item_weights(data, penalty, max_weights, rank),
        ItemWeights.to_arrays,
        ItemWeights.from_arrays,
    )


def _fit_item_weights(
    data: InteractionMatrices, penalty: float, max_weights: int, rank: int
) -> ItemWeights:
    if not data.train.nnz:
        shape = data.train.shape[1], len(data.columns)
        return ItemWeights(empty_matrix(*shape), LowRankFactors.none(*shape))
    per_row = HISTORY_WEIGHTS_FACTOR * max_weights
    weights = make_ease(data.train, data.columns, USER_POWER).weights(penalty)
    if isinstance(weights, sp.csc_array):
        sparse = keep_largest_per_row(keep_largest_per_column(weights, max_weights), per_row)
        return ItemWeights(sparse, LowRankFactors.none(*weights.shape))
    return split_weights(weights, max_weights, per_row, rank)


def fit_target_item_weights(
    task: Task, rows: Ints, penalty: float | None, max_weights: int
) -> sp.csr_array:
    """Fit EASE on the target's interactions alone and return sparse weights (N, C).

    In the weights over all domains, pairs across domains crowd out the pairs within a small target.
    Here each candidate keeps ``max_weights`` pairs within the target. If ``penalty`` is None, the
    matrix is empty.
    """
    task = task.target_only()
    data = InteractionMatrices.of(task, rows)
    if penalty is None or not data.train.nnz:
        return empty_matrix(data.train.shape[1], len(data.columns))
    return fit_item_weights(task, data, penalty, max_weights, rank=0).sparse


def split_weights(weights: Floats, per_column: int, per_row: int, rank: int) -> ItemWeights:
    """Split item-item weights (N, C) into the largest, which stay exact, and a low-rank residual.

    The largest weights link particular items. The many small ones reflect broad preferences, which
    a few directions capture.
    """
    sparse = sparsify_weights(weights, per_column, per_row)
    residual = weights.copy()
    residual[sparse.nonzero()] = 0.0
    rank = min(rank, *residual.shape)
    if not rank or not residual.any():
        return ItemWeights(sparse, LowRankFactors.none(*weights.shape))
    return ItemWeights(sparse, LowRankFactors.of(*truncated_svd(residual, rank)))


def sparsify_weights(weights: Floats, per_column: int, per_row: int) -> sp.csr_array:
    """Keep the largest weights by magnitude: ``per_column``, then ``per_row`` of those."""
    sparse = keep_largest_per_column(weights, per_column)
    for row in np.flatnonzero(np.diff(sparse.indptr) > per_row):
        values = sparse.data[sparse.indptr[row] : sparse.indptr[row + 1]]
        values[np.argsort(-np.abs(values), kind="stable")[per_row:]] = 0.0
    sparse.eliminate_zeros()
    return sparse
