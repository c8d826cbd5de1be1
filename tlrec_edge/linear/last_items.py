"""The last items of a history, and the graph of what is bought after what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.sparse as sp

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.linear.matrices import faded_history
from tlrec_edge.linear.priors import popularity
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.types import Ints, Scores


@dataclass(frozen=True)
class TransitionSettings:
    """Settings of the transition graph.

    Attributes:
        decay: factor by which an item of the history counts less than the one after it; with 0
            the last item counts alone.
        window: a transition leads to any of that many next items; the d-th counts 1 / d.
        both_ways: whether a transition counts in both directions.
        prior: transitions that popularity counts as much as.
    """

    decay: float = 0.5
    window: int = 1
    both_ways: bool = False
    prior: float = 10.0


TRANSITION_SETTINGS = tuple(
    TransitionSettings(decay, window, both_ways)
    for decay in (0.0, 0.8, 0.95)
    for window, both_ways in ((1, False), (5, True))
)


SMALLEST_PRIOR = 1e-6


def transition_scorers(task: Task) -> Callable[[TransitionSettings], Scorer]:
    """Return the scorer for each setting: transitions from the last items (arXiv 2605.07125).

    The score of a candidate is its probability as the next item, averaged over the items of the
    history, of which the last counts most. Counts of transitions are smoothed by popularity.
    """
    buyers = popularity(task).astype(np.float64)
    shares = buyers / max(buyers.sum(), 1.0)

    @cache
    def graph(window: int, both_ways: bool) -> sp.csr_array:
        counts = count_transitions(task.train, task.n_items, window)
        counts = counts + counts.T if both_ways else counts
        return sp.csr_array(counts[:, task.candidates])

    def scorer(setting: TransitionSettings) -> Scorer:
        counts = graph(setting.window, setting.both_ways)
        norm = counts.sum(1) + setting.prior
        history = faded_history(task, setting.decay)
        history.data = history.data / norm[history.indices]
        # A user without history has popularity alone.
        unseen = np.maximum(setting.prior * history.sum(1), SMALLEST_PRIOR)

        def score(users: Ints, columns: Columns = ALL) -> Scores:
            seen = (history[users] @ counts)[:, columns].toarray()
            scores: Scores = seen + unseen[users, None] * shares[columns]
            return scores

        return score

    return scorer


def count_transitions(log: Interactions, n_items: int, window: int) -> sp.csr_array:
    """Count the transitions from each item to the next ``window`` ones of its user.

    The d-th next item counts 1 / d. Shape (items, items).
    """
    total = sp.csr_array((n_items, n_items))
    for distance in range(1, window + 1):
        same_user = log.user[:-distance] == log.user[distance:]
        pairs = log.item[:-distance][same_user], log.item[distance:][same_user]
        weight = np.full(len(pairs[0]), 1.0 / distance)
        total = total + sp.csr_array((weight, pairs), shape=total.shape)
    return sp.csr_array(total)
