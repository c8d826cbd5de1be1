"""Scorers with a few settings, of which the best one on validation rows ranks the test rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from tlrec_edge.data.remember import remember
from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.linear.ranking import Ranking, Scorer, ndcg, rank_full, sample_rows

Setting = TypeVar("Setting")
"""A frozen dataclass of JSON values."""
MAX_TUNING_ROWS = 1000
"""Validation rows that a setting is chosen by: settings are few and far apart."""
Fit = Callable[[Task], Callable[[Setting], Scorer]]
"""Read a task's training data once, and return the scorer of any setting."""
Ranker = Callable[[Tasks], Ranking]
"""Rank the test rows, given the tasks of one target and fold."""


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


@dataclass
class TunedScorer(Generic[Setting]):
    """A scorer with few settings as a ranker of an evaluation.

    Attributes:
        name: name of the scorer in the cache.
        fit: makes the scorers of a task.
        settings: what to try; the first is taken if there are no validation rows.
        target_only: whether the scorer sees the target's interactions alone.
        inputs: what the scorer depends on besides the task, JSON values.
        choice: the setting of the last call.
    """

    name: str
    fit: Fit[Setting]
    settings: Sequence[Setting]
    target_only: bool = False
    inputs: tuple[Any, ...] = ()
    choice: Setting | None = None

    def __call__(self, tasks: Tasks) -> Ranking:
        if self.target_only:
            tasks = tasks.target_only()
        choice = self.choice = self.choose(tasks.choose)
        final = tasks.final
        described = asdict(choice)  # type: ignore[call-overload]  # settings are dataclasses
        return rank_once(final, self.name, lambda: self.fit(final)(choice), described, *self.inputs)

    def choose(self, task: Task) -> Setting:
        """Return the setting with the best NDCG@10 on the task's rows, or on a sample of them."""
        if len(self.settings) == 1 or not len(task.rows) or not len(task.train):
            return self.settings[0]
        tried = [repr(setting) for setting in self.settings]
        best = remember(
            task,
            f"choose {self.name}",
            (tried, *self.inputs),
            lambda: self._best(task),
            lambda index: {"index": np.array(index)},
            lambda arrays: int(arrays["index"]),
        )
        return self.settings[best]

    def _best(self, task: Task) -> int:
        sampled = sample_rows(task, MAX_TUNING_ROWS)
        scorer = self.fit(sampled)
        return int(np.argmax([ndcg(scorer(setting), sampled) for setting in self.settings]))
