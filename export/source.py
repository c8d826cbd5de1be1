"""What an export reads: a model, the dataset it was trained on, and a sample of known users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.runtime.history import History
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.served import history_of
from tlrec_edge.train.user_histories import UserHistories
from tlrec_edge.types import Floats, Ints

PARITY_USERS = 64
"""Users whose scores are compared with the torch model's."""
SAMPLED_USERS = 8 * PARITY_USERS
"""Users that scales and the search index are fitted to."""


@dataclass(frozen=True)
class ExportSource:
    """A model together with the histories it will serve.

    Attributes:
        model: The trained model.
        dataset: The dataset that the model was trained on.
        task: The final task of the model's target; its history holds all interactions.
        past: The users' histories in the model's item rows, without items it does not know.
        sample: Rows of sampled users with a history, ascending, (u,).
    """

    model: EdgeModel
    dataset: Dataset
    task: Task
    past: UserHistories
    sample: Ints

    @classmethod
    def of(cls, model: EdgeModel, dataset: Dataset, seed: int) -> ExportSource:
        """Read the interactions of a model's target and sample users that have some."""
        task = final_task(model, dataset)
        past = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
        known = _users_with_history(past)
        count = min(len(known), SAMPLED_USERS)
        sample = np.random.default_rng(seed).choice(known, count, replace=False) if count else known
        return cls(model, dataset, task, past, np.sort(sample))

    @property
    def known_users(self) -> Ints:
        """Rows of all users with a history."""
        return _users_with_history(self.past)

    @property
    def target_users(self) -> Ints:
        """Rows of the users with an interaction in the target."""
        in_target = np.unique(self.task.history.user[self.task.in_target(self.task.history)])
        return np.intersect1d(in_target, self.known_users).astype(np.int32)

    @property
    def parity_users(self) -> Ints:
        """Rows of the sampled users whose scores are compared."""
        return self.sample[:PARITY_USERS]

    @property
    def candidate_names(self) -> list[str]:
        """Ids of the task's candidates."""
        return [self.dataset.items[row] for row in self.task.candidates]

    @property
    def low_rank_width(self) -> int:
        """Columns of the low-rank block: of the interest part, then of the residual."""
        return self.model.interest.rank + self.model.residual.rank

    def histories(self, users: Ints) -> list[History]:
        """Return the users' histories in the form that the runtime accepts."""
        return [history_of(self.dataset, self.past.log, int(user)) for user in users]

    def encoded(self, users: Ints) -> Floats:
        """Return the two-tower user vectors, (u, d)."""
        return self.model.user_vectors(self.past, users)

    def low_rank(self, users: Ints) -> Floats:
        """Return the users' low-rank block with its weights multiplied in, as served, (u, r)."""
        return self.model.user_low_rank(self.past.matrix[users]) * self.model.low_rank_weights


def final_task(model: EdgeModel, dataset: Dataset) -> Task:
    """Return the task that a model is served for: its target, with every interaction as history."""
    return make_tasks(dataset, model.provenance.domains, model.provenance.fold).final


def _users_with_history(past: UserHistories) -> Ints:
    return np.flatnonzero(np.diff(past.start) > 0).astype(np.int32)
