"""Nearest histories: recommend what users with similar last items bought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.linear.matrices import keep_largest_per_row, steps_from_end, user_item
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.types import Ints, Longs, Scores


@dataclass(frozen=True)
class SessionKnnSettings:
    """Settings of VMIS-kNN.

    Attributes:
        last_items: items of the history that are compared; the i-th from the end has the weight
            ``1 - (i - 1) / last_items``.
        recent: most recent histories that are compared, per item and in all (m).
        neighbours: histories that are used (k).
    """

    last_items: int = 10
    recent: int = 1000
    neighbours: int = 100


SESSION_KNN_SETTINGS = tuple(
    SessionKnnSettings(last_items, recent, neighbours)
    for last_items in (10, 50)
    for recent, neighbours in ((500, 100), (2500, 500))
)
USERS_PER_PART = 64
"""Users whose neighbours are searched together, which bounds the memory."""


def session_knn_scorers(task: Task) -> Callable[[SessionKnnSettings], Scorer]:
    """Return the scorer for each setting: VMIS-kNN of Serenade (Kersbergen et al., SIGMOD 2022).

    The neighbours of a user are other users whose histories hold the user's last items, the last
    of which weighs most. A candidate's score is the sum over the neighbours that had it: similarity
    x weight of the last item in common x inverse document frequency of the candidate.
    """
    by_recency = _users_by_recency(task.train)
    baskets = user_item(task.train, task.n_users, task.n_items)[by_recency]
    n_buyers = np.bincount(baskets.indices, minlength=task.n_items)[task.candidates]
    idf = np.log(max(len(by_recency), 1) / np.maximum(n_buyers, 1)).astype(np.float32)
    bought = sp.csr_array(baskets[:, task.candidates].multiply(idf))
    own_row = np.full(task.n_users, -1, np.int64)
    own_row[by_recency] = np.arange(len(by_recency))

    @cache
    def index(recent: int) -> sp.csr_array:
        return _first_per_row(sp.csr_array(baskets.T), recent)

    def scorer(setting: SessionKnnSettings) -> Scorer:
        last_items = _LastItems.of(task, setting.last_items)
        buyers = index(setting.recent)

        def score_few(users: Ints) -> sp.csr_array:
            similarity, weight = last_items.match(users, buyers)
            similarity.data[similarity.indices == own_row[users][_row_of_entry(similarity)]] = 0.0
            similarity.eliminate_zeros()
            recent = _first_per_row(similarity, setting.recent)
            near = keep_largest_per_row(recent, setting.neighbours)
            return sp.csr_array(near.multiply(weight)) @ bought

        def score(users: Ints, columns: Columns = ALL) -> Scores:
            parts = [users[i : i + USERS_PER_PART] for i in range(0, len(users), USERS_PER_PART)]
            found: Any = sp.vstack([score_few(part) for part in parts], format="csr")
            scores: Scores = found[:, columns].toarray()
            return scores

        return score

    return scorer


class _LastItems(NamedTuple):
    """The last items of each user, (users, items)."""

    weight: sp.csr_array
    """1 for the last item, falling to 0 along the items that are compared."""
    bit: sp.csr_array
    """A bit by position, highest for the last item, so that a sum of bits is a set of positions."""
    n_compared: int

    @classmethod
    def of(cls, task: Task, count: int) -> _LastItems:
        step = steps_from_end(task.history, task.n_users, task.n_items)
        step.data[step.data > count] = 0.0
        step.eliminate_zeros()
        compared = np.minimum(step.max(1).toarray().ravel(), count)[_row_of_entry(step)]
        weight, bit = step.copy(), step.copy()
        weight.data = 1.0 - (step.data - 1.0) / compared
        bit.data = 2.0 ** (count - step.data)
        return cls(weight, bit, count)

    def match(self, users: Ints, buyers: sp.csr_array) -> tuple[sp.csr_array, sp.csr_array]:
        """Return the similarity of each user to the histories in ``buyers`` (items, histories).

        Also return the weight of the last item in common. Both are (u, histories).
        """
        similarity, matches = self.weight[users] @ buyers, self.bit[users] @ buyers
        steps_back = self.n_compared - 1 - np.floor(np.log2(matches.data))
        matches.data = 1.0 - steps_back / self.n_compared
        return similarity, matches


def _users_by_recency(log: Interactions) -> Ints:
    """Return the users of a log, whoever was active last first."""
    users, first = np.unique(log.user, return_index=True)
    last = np.append(first[1:], len(log)) - 1
    order = np.lexsort((log.position[last], log.time[last]))[::-1]
    return users[order]


def _row_of_entry(matrix: sp.csr_array) -> Longs:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _first_per_row(matrix: sp.csr_array, count: int) -> sp.csr_array:
    """Keep the ``count`` entries of each row that have the lowest columns."""
    matrix.sort_indices()
    keep = np.arange(matrix.nnz) - matrix.indptr[_row_of_entry(matrix)] < count
    size = np.minimum(np.diff(matrix.indptr), count)
    parts = matrix.data[keep], matrix.indices[keep], np.append(0, np.cumsum(size))
    return sp.csr_array(parts, shape=matrix.shape)
