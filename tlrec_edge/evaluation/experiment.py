"""Experiments: make a model in one way, and measure it on validation rows and on every test row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.choices import AUTO, MODES
from tlrec_edge.core.metrics import (
    METRICS,
    clustered_mean,
    lift_json,
    nan_to_none,
    paired_lift,
)
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Tasks
from tlrec_edge.linear.baselines import SIMPLE_BASELINES, Baseline
from tlrec_edge.linear.ranking import Ranking, rank_rows
from tlrec_edge.train.adapt import adapt, check_source, refit
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit_mode import fit_mode
from tlrec_edge.train.plan import visible_task
from tlrec_edge.train.score_weights import cross_fitted_ndcg
from tlrec_edge.train.setup import Context
from tlrec_edge.types import Doubles, Ints

TARGET_ONLY_EXPERIMENTS = (*(b.name for b in SIMPLE_BASELINES if b.target_only), "scratch")
"""Experiments that train on the target only."""


@dataclass(frozen=True)
class ExperimentConfig:
    """The data, the training options and, for the modes that start from one, the source model."""

    dataset: Dataset
    tasks: Tasks
    train: TrainConfig
    source: EdgeModel | None = None
    fold: int | None = None


class ExperimentResult(NamedTuple):
    """The figures of one experiment.

    Attributes:
        validation: NDCG@10 on the validation rows; None if there are none.
        values: NDCG@10 of each test row, (m,); empty if the experiment failed.
        chosen: the mode that "auto" chose.
        failure: why the experiment failed; "" if it did not.
    """

    validation: float | None
    values: Doubles
    chosen: str = ""
    failure: str = ""


def failed(reason: str) -> ExperimentResult:
    """Return the result of an experiment that failed."""
    return ExperimentResult(None, np.empty(0), failure=reason)


def _baseline(experiment: ExperimentConfig, baseline: Baseline) -> ExperimentResult:
    dataset, tasks = experiment.dataset, experiment.tasks
    if not baseline.is_usable(dataset):
        return failed(f"the dataset has no {baseline.needs}")
    rank = baseline.ranker(dataset)
    validation = None
    if len(tasks.choose.rows):
        validation = float(_ndcg(rank(Tasks(tasks.choose, tasks.choose))).mean())
    return ExperimentResult(validation, _ndcg(rank(tasks)))


def _ndcg(ranking: Ranking) -> Doubles:
    return METRICS["ndcg"](ranking.rank, 10)


def _auto(experiment: ExperimentConfig) -> ExperimentResult:
    dataset, tasks, fold = experiment.dataset, experiment.tasks, experiment.fold
    model, table = adapt_auto(
        dataset, tasks.final.domains, experiment.source, experiment.train, fold, tasks=tasks
    )
    chosen = next(row for row in table if row.chosen)
    task = visible_task(tasks.final, model.provenance.mode)
    values = _ndcg(rank_rows(model.scorer(dataset, task), task))
    return ExperimentResult(chosen.ndcg, values, chosen.mode)


def _mode(experiment: ExperimentConfig, mode: str) -> ExperimentResult:
    """Do as ``adapt`` does, but keep the model that was fitted without the validation rows."""
    dataset, tasks, fold = experiment.dataset, experiment.tasks, experiment.fold
    config, source = experiment.train, experiment.source
    domains = tasks.final.domains
    check_source(source, dataset, domains)
    fitted = fit_mode(Context(dataset, tasks.choose, source, config), mode)
    if mode == "zero-shot":
        model = adapt(dataset, domains, mode, source, config, fold, tasks=tasks)
    else:
        model = refit(fitted, Context(dataset, tasks.final, source, config), tasks, fold)
    choose, final = visible_task(tasks.choose, mode), visible_task(tasks.final, mode)
    validation = None
    if len(choose.rows):  # cross-fitted score weights, as when "auto" compares modes
        ndcg, *_ = cross_fitted_ndcg(fitted.model, dataset, choose, mode, config.parts)
        validation = float(ndcg.mean())
    return ExperimentResult(validation, _ndcg(rank_rows(model.scorer(dataset, final), final)))


EXPERIMENTS: dict[str, Callable[[ExperimentConfig], ExperimentResult]] = {
    **{b.name: partial(_baseline, baseline=b) for b in SIMPLE_BASELINES},
    **{mode: partial(_mode, mode=mode) for mode in MODES},
    AUTO: _auto,
}
"""Simple baselines, transfer modes, and the choice of a mode on validation rows."""


@dataclass(frozen=True)
class ResultRow:
    """The results of one experiment by seed; if one failed, all figures are None."""

    name: str
    by_seed: tuple[ExperimentResult, ...]

    @property
    def failure(self) -> str:
        """Why the experiment failed; "" if it did not."""
        return next((result.failure for result in self.by_seed if result.failure), "")

    @property
    def values(self) -> Doubles:
        """NDCG@10 of each test row, mean over seeds, (m,)."""
        mean: Doubles = np.mean([result.values for result in self.by_seed], 0)
        return mean

    @property
    def validation(self) -> float | None:
        """NDCG@10 on the validation rows, mean over seeds; None if there are none."""
        figures = [result.validation for result in self.by_seed if result.validation is not None]
        return float(np.mean(figures)) if len(figures) == len(self.by_seed) else None

    def to_json(self, users: Ints) -> dict[str, Any]:
        """Return the figures as plain data; ``users`` (m,) are those of the test rows."""
        row: dict[str, Any] = {
            "name": self.name,
            "validation_ndcg@10": self.validation,
            "ndcg@10": None,
            "ndcg@10.se": None,
            "by_seed": [],
            "chosen": [],
            "why": self.failure,
        }
        if self.failure:
            return row
        estimate = clustered_mean(self.values, users)
        row["ndcg@10"], row["ndcg@10.se"] = estimate.mean, estimate.se
        row["by_seed"] = [float(result.values.mean()) for result in self.by_seed]
        row["chosen"] = [result.chosen for result in self.by_seed if result.chosen]
        return nan_to_none(row)


def compare(of: ResultRow, over: ResultRow, users: Ints) -> dict[str, Any]:
    """Return the paired lift on the test rows as plain data; ``users`` (m,) are their users."""
    return lift_json(of.name, over.name, paired_lift(of.values, over.values, users))


def best_row(rows: Sequence[ResultRow]) -> ResultRow:
    """Return the row that is strongest on the test rows."""
    return max((row for row in rows if not row.failure), key=lambda row: float(row.values.mean()))
