"""Nearest items by cosine, with light users weighing more and recent items counting more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp

from tlrec_edge.core.metrics import METRICS, rank_of_positive
from tlrec_edge.data.remember import remember
from tlrec_edge.data.task import Task
from tlrec_edge.linear.ease import weigh_users
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.matrices import InteractionMatrices
from tlrec_edge.linear.ranking import (
    ALL,
    Columns,
    EvalQueries,
    Scorer,
    make_queries,
    row_scores,
    sample_rows,
)
from tlrec_edge.types import Floats, Ints, Scores

USER_POWERS = (0.0, 0.5)
DECAYS = (1.0, 0.9, 0.8)


@dataclass(frozen=True)
class ItemKnnHyperparameters:
    """Hyperparameters of nearest items, chosen on validation rows.

    Attributes:
        user_power: a user of n items has the weight ``n ** -user_power`` in similarities.
        decay: factor by which an item of the history counts less than the one after it.
        ndcg: the validation NDCG@10 that was reached, NaN if nothing was chosen.
    """

    user_power: float = 0.5
    decay: float = 1.0
    ndcg: float = float("nan")


def item_knn_scorer(task: Task, hyperparameters: ItemKnnHyperparameters) -> Scorer:
    """Score candidates by the sum of their cosines to the items of the history."""
    similarity = _similarity(task, hyperparameters.user_power)
    history = _faded_history(task, hyperparameters.decay)

    def score(users: Ints, columns: Columns = ALL) -> Scores:
        scores: Floats = (history[users] @ similarity)[:, columns].toarray()
        return scores

    return score


def tune_item_knn(task: Task) -> ItemKnnHyperparameters:
    """Choose the hyperparameters by NDCG@10 on the task's rows; without rows, the defaults."""
    if not len(task.rows) or not len(task.train):
        return ItemKnnHyperparameters()
    return remember(
        task,
        "tune_item_knn",
        (),
        lambda: _tune(task),
        lambda chosen: {name: np.array(value) for name, value in asdict(chosen).items()},
        lambda arrays: ItemKnnHyperparameters(**{k: float(v) for k, v in arrays.items()}),
    )


def _tune(task: Task) -> ItemKnnHyperparameters:
    sampled = sample_rows(task)
    valid = make_queries(sampled, sampled.rows).valid
    histories = {decay: _faded_history(task, decay) for decay in DECAYS}
    tried = []
    for user_power in USER_POWERS:
        similarity = _similarity(task, user_power)
        scored = row_scores(partial(_scores, list(histories.values()), similarity), sampled)
        for decay, scores in zip(histories, scored, strict=True):
            ndcg = float(METRICS["ndcg"](rank_of_positive(scores, valid), 10).mean())
            tried.append(ItemKnnHyperparameters(user_power, decay, ndcg))
    return max(tried, key=lambda parameters: parameters.ndcg)


def _scores(
    histories: Sequence[sp.csr_array], similarity: sp.csr_array, queries: EvalQueries
) -> list[Scores]:
    return [
        (history[queries.user] @ similarity)[:, queries.requested].toarray()
        for history in histories
    ]


def _similarity(task: Task, user_power: float) -> sp.csr_array:
    data = InteractionMatrices.of(task)
    return item_cf(weigh_users(data.train, user_power), data.columns, "cosine")


def _faded_history(task: Task, decay: float) -> sp.csr_array:
    """Return the histories (users, items): 1 for a user's last item, ``decay`` for the one before.

    An item that occurs several times counts as at its last time.
    """
    log = task.history
    pair = log.user.astype(np.int64) * task.n_items + log.item
    # A user's rows are in order of time, so the first of a pair from the end is its last.
    last = len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]
    steps = np.searchsorted(log.user, log.user[last], side="right") - 1 - last
    weight = (decay**steps).astype(np.float32)
    shape = task.n_users, task.n_items
    return sp.csr_array((weight, (log.user[last], log.item[last])), shape=shape)
