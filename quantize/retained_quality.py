"""Compare a compressed model with its original on the original's validation rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlrec_edge.core.metrics import METRICS, Array, clustered_mean, paired_lift
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.ranking import rank_rows, sample_rows
from tlrec_edge.train.edge_model import EdgeModel

from .budget import Budget

MAX_JUDGED_ROWS = 6000


@dataclass(frozen=True)
class RetainedQuality:
    """The metric of a model, its ratio to the original's, the ratio's standard error, and the lower end of its 95 %
    interval: paired, bootstrap over users. NaN if there is nothing to measure by."""

    value: float
    ratio: float
    se: float
    low: float


class Judge:
    """Compares models with one original on the same rows of a task; a sample of them if there are many."""

    def __init__(self, original: EdgeModel, dataset: Dataset, task: Task, budget: Budget) -> None:
        self._dataset, self._budget = dataset, budget
        self.task = sample_rows(task, MAX_JUDGED_ROWS)
        self._base = self._values(original) if len(self.task.rows) else np.zeros(0)

    def _values(self, model: EdgeModel) -> Array:
        ranks = rank_rows(model.scorer(self._dataset, self.task), self.task).rank
        return METRICS[self._budget.metric](ranks, self._budget.k)

    @property
    def rows(self) -> int:
        return len(self._base)

    def retained(self, model: EdgeModel) -> RetainedQuality:
        """Measure the quality a model retains."""
        nan = float("nan")
        base = float(self._base.mean()) if self.rows else 0.0
        if not base:
            return RetainedQuality(nan, nan, nan, nan)
        values, users = self._values(model), self.task.rows.user
        ratio = float(values.mean()) / base
        se = clustered_mean(values - ratio * self._base, users).se / base
        # The interval of the difference, the original taken as given: to first order that of the ratio.
        low = ratio + (paired_lift(values, ratio * self._base, users).low) / base
        return RetainedQuality(
            float(values.mean()), ratio, float(se), float(low) if se > 0 else ratio
        )
