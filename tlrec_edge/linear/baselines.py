"""The baselines of an evaluation: popularity, item-based collaborative filtering, EASE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tlrec_edge.data.remember import remember
from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.linear.ease import sparse_scorer
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.item_knn import ItemKnnHyperparameters, item_knn_scorer, tune_item_knn
from tlrec_edge.linear.item_weights import WEIGHTS_PER_CANDIDATE
from tlrec_edge.linear.matrices import InteractionMatrices, keep_largest_per_column
from tlrec_edge.linear.priors import log_popularity, popularity
from tlrec_edge.linear.ranking import ALL, Columns, Ranking, Scorer, rank_full
from tlrec_edge.linear.sparse_ease import make_ease
from tlrec_edge.linear.tuning import EaseHyperparameters, tune_ease
from tlrec_edge.types import Ints, Scores


def popularity_scorer(task: Task) -> Scorer:
    """Score candidates by their number of buyers in the target."""
    buyers = popularity(task)
    return lambda users, columns=ALL: np.broadcast_to(
        buyers[columns], (len(users), len(buyers[columns]))
    )


def item_cf_scorer(task: Task, similarity: str = "jaccard") -> Scorer:
    """Score candidates by their similarity to the items of the history.

    Similarities are averaged (``jaccard``) or summed (``cosine``).
    """
    data = InteractionMatrices.of(task)
    weights = item_cf(data.train, data.columns, similarity)
    length = np.diff(data.history.indptr)[:, None]
    divisor = np.maximum(length, 1) if similarity == "jaccard" else np.ones(length.shape)
    return lambda users, columns=ALL: (
        (data.history[users] @ weights)[:, columns].toarray() / divisor[users]
    )


def ease_scorer(task: Task, hyperparameters: EaseHyperparameters) -> Scorer:
    """Score candidates by EASE over the whole history, plus weighted log popularity."""
    data = InteractionMatrices.of(task, _used_item_rows(task))
    solver = make_ease(data.train, data.columns)
    if hyperparameters.max_weights is None:
        ease = solver.scorer(hyperparameters.penalty)
    else:
        weights = solver.weights(hyperparameters.penalty)
        ease = sparse_scorer(keep_largest_per_column(weights, hyperparameters.max_weights))
    popularity = log_popularity(task, hyperparameters.half_life)
    prior = hyperparameters.popularity_weight * popularity
    repeat_bias = hyperparameters.repeat_bias

    def score(users: Ints, columns: Columns = ALL) -> Scores:
        history = data.history[users]
        total = ease(history, columns) + prior[columns]
        if repeat_bias:
            total = total + repeat_bias * history[:, data.columns[columns]].toarray()
        return total

    return score


def _used_item_rows(task: Task) -> Ints:
    """Number the items that occur in training or are candidates; no other item has a weight."""
    used = np.union1d(np.unique(task.train.item), task.candidates)
    rows = np.full(task.n_items, -1, np.int32)
    rows[used] = np.arange(len(used), dtype=np.int32)
    return rows


def fit_tuned_ease(
    tasks: Tasks, target_only: bool, decay: bool = False
) -> tuple[Scorer, Task, EaseHyperparameters]:
    """Tune EASE on the validation task and fit it for the test task, which is returned too.

    ``target_only`` fits it to the target's interactions alone. ``decay`` also tries popularity that
    decays with age.
    """
    hyperparameters = _tune(tasks, target_only, decay)
    final = tasks.final.target_only() if target_only else tasks.final
    return ease_scorer(final, hyperparameters), final, hyperparameters


def _tune(tasks: Tasks, target_only: bool, decay: bool) -> EaseHyperparameters:
    choose = tasks.choose.target_only() if target_only else tasks.choose
    return tune_ease(
        choose,
        InteractionMatrices.of(choose, _used_item_rows(choose)),
        max_weights=WEIGHTS_PER_CANDIDATE,
        decay=decay,
    )


@dataclass
class TunedEase:
    """Tuned EASE as a ranker of an evaluation: called with tasks, it returns the test ranking.

    ``choice`` holds the hyperparameters of the last call.
    """

    target_only: bool
    decay: bool = False
    choice: EaseHyperparameters | None = None

    def __call__(self, tasks: Tasks) -> Ranking:
        choice = self.choice = _tune(tasks, self.target_only, self.decay)
        task = tasks.final.target_only() if self.target_only else tasks.final
        return rank_once(task, "ease", lambda: ease_scorer(task, choice), asdict(choice))


@dataclass
class TunedItemKnn:
    """Tuned nearest items as a ranker of an evaluation.

    ``choice`` holds the hyperparameters of the last call.
    """

    target_only: bool
    choice: ItemKnnHyperparameters | None = None

    def __call__(self, tasks: Tasks) -> Ranking:
        if self.target_only:
            tasks = Tasks(tasks.choose.target_only(), tasks.final.target_only())
        choice = self.choice = tune_item_knn(tasks.choose)
        final = tasks.final
        return rank_once(final, "itemknn", lambda: item_knn_scorer(final, choice), asdict(choice))


def rank_once(task: Task, name: str, fit: Callable[[], Scorer], *inputs: Any) -> Ranking:
    """Rank the task's rows by a scorer; what was ranked before is read from the task's cache.

    ``name`` and ``inputs``, JSON values, are all that the scorer depends on besides the task.
    """
    return remember(
        task,
        f"rank {name}",
        inputs,
        lambda: rank_full(fit(), task),
        Ranking.to_arrays,
        Ranking.from_arrays,
    )
