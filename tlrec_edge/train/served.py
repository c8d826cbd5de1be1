"""Score a task with a bundle, as a service would."""

from __future__ import annotations

import numpy as np

from tlrec_edge.data.dataset import Dataset, Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.types import Ints, Scores


def history_of(dataset: Dataset, log: Interactions, user: int) -> History:
    """Return a user's interactions as a ``History``. The log must be sorted by user."""
    part = slice(*np.searchsorted(log.user, [user, user + 1]).tolist())
    return History(
        [dataset.items[row] for row in log.item[part]],
        events=log.event[part].tolist(),
        timestamps=log.time[part].tolist() if log.time[part].any() else None,
    )


def bundle_scorer(recommender: Recommender, dataset: Dataset, task: Task) -> Scorer:
    """Return a function that scores the task's candidates with a bundle.

    Candidates that the bundle lacks are scored by its policy for unknown ids.
    """
    ids = [dataset.items[row] for row in task.candidates]

    def score(users: Ints, columns: Columns = ALL) -> Scores:
        requested = ids if isinstance(columns, slice) else [ids[column] for column in columns]
        histories = (history_of(dataset, task.history, int(user)) for user in users)
        return np.stack([recommender.score(history, requested) for history in histories])

    return score
