"""The baselines every model is shown beside, fitted on what the model may learn from, tuned on its validation rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.linear.ease import item_cf, keep_largest_per_column, popularity, sparse_scorer
from tlrec_edge.linear.item_weights import (
    WEIGHTS_PER_CANDIDATE,
    EaseHyperparameters,
    InteractionMatrices,
    log_popularity,
    tune_ease,
)
from tlrec_edge.linear.ranking import ALL, Columns, Ranking, Scorer, rank_full
from tlrec_edge.linear.sparse_ease import make_ease
from tlrec_edge.types import Ints, Scores


def popularity_scorer(task: Task) -> Scorer:
    """Score by the number of buyers in the target."""
    count = popularity(task)
    return lambda users, columns=ALL: np.broadcast_to(
        count[columns], (len(users), len(count[columns]))
    )


def item_cf_scorer(task: Task, similarity: str = "jaccard") -> Scorer:
    """Score by the mean (``jaccard``) or the sum (``cosine``) of similarities to the history."""
    data = InteractionMatrices.of(task)
    weights = item_cf(data.train, data.columns, similarity)
    size = np.maximum(np.diff(data.history.indptr), 1)[:, None] if similarity == "jaccard" else 1.0
    divisor = np.broadcast_to(size, (task.n_users, 1))
    return lambda users, columns=ALL: (
        (data.history[users] @ weights)[:, columns].toarray() / divisor[users]
    )


def ease_scorer(task: Task, choice: EaseHyperparameters) -> Scorer:
    """Score by EASE over the whole history plus weighted log popularity."""
    data = InteractionMatrices.of(task, _rows(task))
    solver = make_ease(data.train, data.columns)
    if choice.max_weights is None:
        score = solver.scorer(choice.penalty)
    else:
        score = sparse_scorer(
            keep_largest_per_column(solver.weights(choice.penalty), choice.max_weights)
        )
    prior = choice.popularity_weight * log_popularity(task, choice.half_life)

    def scored(users: Ints, columns: Columns = ALL) -> Scores:
        past = data.history[users]
        total = score(past, columns) + prior[columns]
        return (
            total + choice.repeat_bias * past[:, data.columns[columns]].toarray()
            if choice.repeat_bias
            else total
        )

    return scored


def _rows(task: Task) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Number the items that occur in training or compete; the others have no weight in any column."""
    used = np.union1d(np.unique(task.train.item), task.candidates)
    rows = np.full(task.n_items, -1, np.int32)
    rows[used] = np.arange(len(used), dtype=np.int32)
    return rows


def fit_tuned_ease(
    tasks: Tasks, target_only: bool, decay: bool = False
) -> tuple[Scorer, Task, EaseHyperparameters]:
    """Choose EASE's penalty, cut and weights of popularity and repeats on validation, then fit it for the test; with
    ``decay`` also how fast popularity fades, where the data has time."""
    choose = tasks.choose.target_only() if target_only else tasks.choose
    final = tasks.final.target_only() if target_only else tasks.final
    choice = tune_ease(
        choose,
        InteractionMatrices.of(choose, _rows(choose)),
        max_weights=WEIGHTS_PER_CANDIDATE,
        decay=decay,
    )
    return ease_scorer(final, choice), final, choice


@dataclass
class TunedEase:
    """EASE tuned on validation, as a ranker of an evaluation; ``choice`` is what the last ranking chose."""

    target_only: bool
    decay: bool = False
    choice: EaseHyperparameters | None = None

    def __call__(self, tasks: Tasks) -> Ranking:
        scorer, task, self.choice = fit_tuned_ease(tasks, self.target_only, self.decay)
        return rank_full(scorer, task)
