"""Score a task with a bundle, the way a service would."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Dataset, Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.types import Ints


def history_of(dataset: Dataset, log: Interactions, user: int) -> History:
    """Return a user's interactions as the runtime takes them. The log is sorted by user."""
    part = slice(*np.searchsorted(log.user, [user, user + 1]).tolist())
    return History(
        [dataset.items[row] for row in log.item[part]],
        events=log.event[part].tolist(),
        timestamps=log.time[part].tolist() if log.time[part].any() else None,
    )


def bundle_scorer(recommender: Recommender, dataset: Dataset, task: Task) -> Scorer:
    """Return the bundle's scorer of the task's candidates; one it lacks scores as its policy says."""
    names = [dataset.items[row] for row in task.candidates]

    def score(users: Ints, columns: Columns = ALL) -> NDArray[np.floating]:
        requested = names if isinstance(columns, slice) else [names[column] for column in columns]
        return np.stack(
            [
                recommender.score(history_of(dataset, task.history, int(user)), requested)
                for user in users
            ]
        )

    return score
