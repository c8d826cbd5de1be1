"""Compare a compressed model with its original on the same evaluation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tlrec_edge.core.metrics import METRICS, clustered_mean, paired_lift
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.ranking import rank_rows, sample_rows
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.types import Doubles

from .budget import Budget

MAX_JUDGED_ROWS = 6000
"""Rows on which models are compared: more cost time and narrow the interval little."""


@dataclass(frozen=True)
class RetainedQuality:
    """The share of the original's quality that a model retains; all NaN if it can't be measured.

    Attributes:
        value: the model's metric.
        ratio: ``value`` over the original's metric.
        se: the standard error of the ratio, paired by row and clustered by user.
        low: the lower end of the ratio's 95 % interval, a bootstrap over users.
    """

    value: float
    ratio: float
    se: float
    low: float


UNKNOWN_QUALITY = RetainedQuality(math.nan, math.nan, math.nan, math.nan)


class Judge:
    """Compares models with one original on the rows of a task, or on a sample if they are many."""

    def __init__(self, original: EdgeModel, dataset: Dataset, task: Task, budget: Budget) -> None:
        self._dataset, self._budget = dataset, budget
        self.task = sample_rows(task, MAX_JUDGED_ROWS)
        self._original_values = self._values(original) if len(self.task.rows) else np.zeros(0)

    def _values(self, model: EdgeModel) -> Doubles:
        """Return the budget's metric of each row, (m,)."""
        ranks = rank_rows(model.scorer(self._dataset, self.task), self.task).rank
        return METRICS[self._budget.metric](ranks, self._budget.k)

    @property
    def rows(self) -> int:
        """The number of rows on which models are compared."""
        return len(self._original_values)

    def retained(self, model: EdgeModel) -> RetainedQuality:
        """Measure how much of the original's quality a model retains."""
        original = float(self._original_values.mean()) if self.rows else 0.0
        if not original:
            return UNKNOWN_QUALITY
        values, users = self._values(model), self.task.rows.user
        ratio = float(values.mean()) / original
        # Delta method: near its estimate r, the ratio mean(v) / mean(o) varies to first order as
        # mean(v - r * o) / mean(o). These differences are paired by row, so what makes a row easy
        # or hard for both models cancels, and the bound is much tighter than for two means.
        expected = ratio * self._original_values
        se = clustered_mean(values - expected, users).se / original
        low = ratio + paired_lift(values, expected, users).low / original
        # Identical rankings, or a single user: there is no variation to take an interval of.
        return RetainedQuality(
            float(values.mean()), ratio, float(se), float(low) if se > 0 else ratio
        )
