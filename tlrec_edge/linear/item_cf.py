"""Item-based collaborative filtering: similarities of items by the buyers they share."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tlrec_edge.linear.matrices import fits_dense, keep_largest_per_row
from tlrec_edge.types import Ints

NEIGHBOURS = 1000
"""Similar items that each candidate keeps if the matrix of all similarities is too large."""
CANDIDATES_PER_CHUNK = 20_000


def item_cf(x: sp.csr_array, columns: Ints, similarity: str = "jaccard") -> sp.csr_array:
    """Return the similarity of every item to every candidate. Shape (items, C), double precision.

    ``x`` (users, items) is binary, ``columns`` (C,) are the candidates' columns in it. ``jaccard``
    divides the shared buyers by the union of both items' buyers, ``cosine`` by the geometric mean
    of their numbers. The similarity of an item to itself is 0. If a dense matrix of this size could
    not be built, each candidate keeps its NEIGHBOURS most similar items, in single precision.
    """
    by_item = x.astype(np.float64).tocsc()
    if fits_dense(x.shape[1], len(columns)):
        return _similarities(by_item, columns, similarity)
    trimmed = []
    for first in range(0, len(columns), CANDIDATES_PER_CHUNK):
        chunk = columns[first : first + CANDIDATES_PER_CHUNK]
        by_candidate = sp.csr_array(_similarities(by_item, chunk, similarity).T)
        trimmed.append(keep_largest_per_row(by_candidate, NEIGHBOURS).astype(np.float32))
    return sp.csr_array(sp.vstack(trimmed, format="csr").T)


def _similarities(by_item: sp.csc_array, columns: Ints, similarity: str) -> sp.csr_array:
    shared = (by_item.T @ by_item[:, columns]).tocoo()
    buyers = np.asarray(by_item.power(2).sum(0)).ravel()
    item_buyers, candidate_buyers = buyers[shared.row], buyers[columns][shared.col]
    norm = {
        "jaccard": item_buyers + candidate_buyers - shared.data,
        "cosine": np.sqrt(item_buyers * candidate_buyers),
    }[similarity]
    is_itself = shared.row == columns[shared.col]
    values = np.where(is_itself, 0.0, shared.data / norm)
    return sp.csr_array((values, (shared.row, shared.col)), shape=shared.shape)
