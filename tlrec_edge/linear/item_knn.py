"""Nearest items by cosine, with light users weighing more and recent items counting more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import scipy.sparse as sp

from tlrec_edge.data.task import Task
from tlrec_edge.linear.ease import weigh_users
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.matrices import InteractionMatrices, faded_history
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.types import Floats, Ints, Scores


@dataclass(frozen=True)
class ItemKnnSettings:
    """Settings of nearest items.

    Attributes:
        user_power: a user of n items has the weight ``n ** -user_power`` in similarities.
        decay: factor by which an item of the history counts less than the one after it.
    """

    user_power: float = 0.5
    decay: float = 1.0


ITEM_KNN_SETTINGS = tuple(
    ItemKnnSettings(user_power, decay) for user_power in (0.5, 0.0) for decay in (1.0, 0.9)
)


def item_knn_scorers(task: Task) -> Callable[[ItemKnnSettings], Scorer]:
    """Return the scorer for each setting: the sum of the cosines to the items of the history."""
    data = InteractionMatrices.of(task)

    @cache
    def similarities(user_power: float) -> sp.csr_array:
        return item_cf(weigh_users(data.train, user_power), data.columns, "cosine")

    def scorer(setting: ItemKnnSettings) -> Scorer:
        similarity = similarities(setting.user_power)
        history = faded_history(task, setting.decay)

        def score(users: Ints, columns: Columns = ALL) -> Scores:
            scores: Floats = (history[users] @ similarity)[:, columns].toarray()
            return scores

        return score

    return scorer
