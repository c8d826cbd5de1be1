"""EASE (Steck, WWW 2019): item-item weights in closed form."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.linear.cholesky import PenalizedGram
from tlrec_edge.linear.ranking import ALL, Columns
from tlrec_edge.types import Floats, Ints


class LinearScorer(Protocol):
    """Scores the candidates in ``columns`` for histories (u, items); returns (u, columns)."""

    def __call__(self, history: sp.csr_array, columns: Columns = ALL) -> Floats: ...


def weigh_users(x: sp.csr_array, power: float) -> sp.csr_array:
    """Weigh a user of n items by n^-power, and return the rows of ``x`` that are not empty.

    ``x`` is binary, (users, items); the result is in double precision. The rows are scaled by the
    root of the weight, since X'X multiplies two of them. The mean weight of an interaction stays 1,
    so that a penalty means the same for every power.
    """
    x = x[np.diff(x.indptr) > 0].astype(np.float64)
    size = np.diff(x.indptr)
    weight = size**-power
    x.data *= np.repeat(np.sqrt(weight * len(x.data) / (weight * size).sum()), size)
    return x


class Ease:
    """Exact EASE on a binary matrix ``x`` (users, items), solved for the candidates' ``columns``.

    With ``P = (X'X + pI)^-1`` and penalty p, the weights are ``B = I - P / diag(P)``: each column
    is the ridge regression of an item on all other items. If there are fewer users than items, the
    dual form is solved instead (Woodbury identity): ``P = (I - X'(XX' + pI)^-1 X) / p`` inverts a
    (users, users) matrix instead of an (items, items) one. Users and items without interactions
    have no weights, and take no part.

    A user of n items has the weight ``n ** -user_power``, so that a few users who bought nearly
    everything do not decide which items go together.
    """

    def __init__(self, x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> None:
        self._shape = x.shape[1], len(columns)
        x = weigh_users(x, user_power)
        is_bought = np.bincount(x.indices, minlength=x.shape[1]) > 0
        self._solved = np.flatnonzero(is_bought[columns])
        candidates = columns[self._solved]
        is_bought[candidates] = False
        # Candidates last: then their columns of the inverse take the fewest operations.
        self._items = np.concatenate([np.flatnonzero(is_bought), candidates])
        self._x = x[:, self._items].astype(np.float32)
        self.is_dual = self._x.shape[0] < self._x.shape[1]
        transposed = sp.csr_array(self._x.T)
        self._gram = PenalizedGram(self._x @ transposed if self.is_dual else transposed @ self._x)

    def weights(self, penalty: float) -> Floats:
        """Return the item-item weights (items, C); a candidate's weight on itself is 0."""
        weights = np.zeros(self._shape, np.float32)
        if not len(self._solved):
            return weights
        weights[np.ix_(self._items, self._solved)] = self._solved_weights(penalty)
        return weights

    def scorer(self, penalty: float, needed: Columns = ALL) -> LinearScorer:
        """Solve once, and return the scorer ``history @ weights`` (u, C).

        Only ``SparseEase`` uses ``needed``: here one solution gives all columns.
        """
        return dense_scorer(self.weights(penalty))

    @property
    def size(self) -> int:
        """Rows of the matrix that is inverted: one per item, or per user if they are fewer."""
        return min(self._x.shape)

    @property
    def _first(self) -> int:
        """The index in ``_items`` of the first candidate."""
        return len(self._items) - len(self._solved)

    def _solved_weights(self, penalty: float) -> Floats:
        """Return the weights of ``_items`` (n,) on the candidates among them (k,), (n, k)."""
        index = np.arange(len(self._solved))
        if self.is_dual:
            weights = self._dual_weights(penalty)
        else:
            weights = self._gram.last_inverse_columns(penalty, len(index))
            weights /= -weights[self._first + index, index]
        weights[self._first + index, index] = 0.0
        result: Floats = weights.astype(np.float32, copy=False)
        return result

    def _dual_weights(self, penalty: float) -> NDArray[Any]:
        """Return ``-P / diag(P)`` by the dual form; only its diagonal may be wrong."""
        candidates = self._x[:, self._first :]
        # Rather than solve for each candidate, invert: X is sparse, so the products take no time.
        dual = (candidates.T @ self._gram.inverse(penalty)).T  # (XX' + pI)^-1 X, (users, k)
        projected = np.asarray(candidates.multiply(dual).sum(0)).ravel()
        weights = self._x.T @ dual
        weights /= 1.0 - projected  # p times the diagonal of P
        return np.asarray(weights)


def dense_scorer(weights: Floats) -> LinearScorer:
    """Return the scorer of item-item weights (items, C)."""
    return lambda history, columns=ALL: np.asarray(history @ weights, np.float32)[:, columns]


def sparse_scorer(weights: sp.csr_array) -> LinearScorer:
    """Return the scorer of sparse item-item weights (items, C)."""
    return lambda history, columns=ALL: np.asarray(
        (history @ weights)[:, columns].toarray(), np.float32
    )
