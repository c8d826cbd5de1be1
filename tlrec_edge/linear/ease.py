"""EASE (Steck, WWW 2019): item-item weights in closed form."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse as sp

from tlrec_edge.linear.ranking import ALL, Columns
from tlrec_edge.types import Doubles, Floats, Ints


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
    (users, users) matrix instead of an (items, items) one.

    A user of n items has the weight ``n ** -user_power``, so that a few users who bought nearly
    everything do not decide which items go together.
    """

    def __init__(self, x: sp.csr_array, columns: Ints, user_power: float = 0.0) -> None:
        self.x = weigh_users(x, user_power)
        self.columns, self.column_index = columns, np.arange(len(columns))
        self.candidates = self.x.tocsc()[:, columns]  # (users, C)
        self.is_dual = self.x.shape[0] < self.x.shape[1]
        self.gram = (self.x @ self.x.T if self.is_dual else self.x.T @ self.x).toarray()

    def weights(self, penalty: float) -> Floats:
        """Return the item-item weights (items, C); a candidate's weight on itself is 0."""
        if self.is_dual:
            dual, diagonal = self._solve_dual(penalty)
            weights = (self.x.T @ dual) / (penalty * diagonal)
        else:
            unit = np.zeros((self.x.shape[1], len(self.columns)))
            unit[self.columns, self.column_index] = 1.0
            inverse = np.linalg.solve(self._penalized_gram(penalty), unit)
            weights = -inverse / inverse[self.columns, self.column_index]
        weights[self.columns, self.column_index] = 0.0
        result: Floats = weights.astype(np.float32)
        return result

    def scorer(self, penalty: float, needed: Columns = ALL) -> LinearScorer:
        """Solve once, and return the scorer ``history @ weights`` (u, C).

        Only ``SparseEase`` uses ``needed``: here one solution gives all columns. The dual form
        never builds the matrix of weights.
        """
        if not self.is_dual:
            weights = self.weights(penalty)
            return lambda history, columns=ALL: np.asarray(history @ weights, np.float32)[
                :, columns
            ]
        dual, diagonal = self._solve_dual(penalty)

        def score(history: sp.csr_array, columns: Columns = ALL) -> Floats:
            # h B = h - h P / diag(P), with p P = I - X'(XX' + pI)^-1 X; the diagonal of B is 0.
            identity = history[:, self.columns].toarray()  # h I, (u, C)
            product = (history @ self.x.T) @ dual - identity
            return np.asarray(product / (penalty * diagonal) + identity, np.float32)[:, columns]

        return score

    def _solve_dual(self, penalty: float) -> tuple[Doubles, Doubles]:
        """Return ``(XX' + pI)^-1 X`` (users, C) and the diagonal of P (C,) for the candidates."""
        gram = self._penalized_gram(penalty)
        dual = np.asarray(np.linalg.solve(gram, self.candidates.toarray()), np.float64)
        projected = np.asarray(self.candidates.multiply(dual).sum(0), np.float64).ravel()
        return dual, (1.0 - projected) / penalty

    def _penalized_gram(self, penalty: float) -> Doubles:
        gram: Doubles = self.gram.copy()
        gram[np.diag_indices_from(gram)] += penalty
        return gram


def sparse_scorer(weights: sp.csr_array) -> LinearScorer:
    """Return the scorer of sparse item-item weights (items, C)."""
    return lambda history, columns=ALL: np.asarray(
        (history @ weights)[:, columns].toarray(), np.float32
    )
