"""One way of making a model, tried: what it reaches on validation, and on each question of the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.core.metrics import (
    METRICS,
    clustered_mean,
    lift_json,
    nan_to_none,
    paired_lift,
)
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.linear.baselines import ease_scorer, fit_tuned_ease, popularity_scorer
from tlrec_edge.linear.ranking import Ranking, Scorer, rank_rows
from tlrec_edge.train.adapt import adapt, check_source, fit_and_tune, refit
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.score_weights import cross_fitted_ndcg
from tlrec_edge.train.setup import Context
from tlrec_edge.types import Doubles


@dataclass(frozen=True)
class ExperimentConfig:
    """What a trial works with; ``source`` is for the modes that start from one."""

    dataset: Dataset
    tasks: Tasks
    config: TrainConfig
    source: EdgeModel | None = None
    fold: int | None = None


class ExperimentResult(NamedTuple):
    """NDCG@10 on validation, None where nothing is asked there, and of each test row (m,); ``chosen`` is auto's mode.

    ``failure`` says what kept the trial from being made; its figures are then empty.
    """

    validation: float | None
    values: Doubles
    chosen: str = ""
    failure: str = ""


def failed(why: str) -> ExperimentResult:
    """Return the outcome of a trial that could not be made."""
    return ExperimentResult(None, np.empty(0), failure=why)


def _popularity(experiment: ExperimentConfig) -> ExperimentResult:
    return _result(experiment.tasks, popularity_scorer, popularity_scorer)


def _ease(experiment: ExperimentConfig, target_only: bool) -> ExperimentResult:
    scorer, final, choice = fit_tuned_ease(experiment.tasks, target_only)
    choose = experiment.tasks.choose.target_only() if target_only else experiment.tasks.choose
    return _result(Tasks(choose, final), lambda task: ease_scorer(task, choice), lambda _: scorer)


def _result(
    tasks: Tasks, choose: Callable[[Task], Scorer], final: Callable[[Task], Scorer]
) -> ExperimentResult:
    """Rank the validation rows and the test rows, each with a scorer that was fitted without them."""
    validation = rank_rows(choose(tasks.choose), tasks.choose) if len(tasks.choose.rows) else None
    return ExperimentResult(
        float(_ndcg(validation).mean()) if validation else None,
        _ndcg(rank_rows(final(tasks.final), tasks.final)),
    )


def _ndcg(ranking: Ranking) -> Doubles:
    return METRICS["ndcg"](ranking.rank, 10)


def _auto(experiment: ExperimentConfig) -> ExperimentResult:
    dataset, tasks, fold = experiment.dataset, experiment.tasks, experiment.fold
    model, table = adapt_auto(
        dataset, tasks.final.domains, experiment.source, experiment.config, fold, tasks=tasks
    )
    chosen = next(row for row in table if row.chosen)
    task = _visible_task(model.provenance.mode, tasks.final)
    return ExperimentResult(
        chosen.ndcg, _ndcg(rank_rows(model.scorer(dataset, task), task)), chosen.mode
    )


def _mode(experiment: ExperimentConfig, mode: str) -> ExperimentResult:
    """Fit and choose as ``adapt`` does, keeping the model that was fitted without the validation rows."""
    dataset, tasks, config, source = (
        experiment.dataset,
        experiment.tasks,
        experiment.config,
        experiment.source,
    )
    check_source(source, dataset, tasks.final.domains)
    fitted = fit_and_tune(Context(dataset, tasks.choose, source, config), mode)
    if mode == "zero-shot":
        model = adapt(
            dataset, tasks.final.domains, mode, source, config, experiment.fold, tasks=tasks
        )
    else:
        model = refit(fitted, Context(dataset, tasks.final, source, config), tasks, experiment.fold)
    validation_task, final = _visible_task(mode, tasks.choose), _visible_task(mode, tasks.final)
    validation = None
    if len(validation_task.rows):  # judged as auto judges
        validation = float(
            cross_fitted_ndcg(fitted.model, dataset, validation_task, mode, config.parts)[0].mean()
        )
    return ExperimentResult(validation, _ndcg(rank_rows(model.scorer(dataset, final), final)))


def _visible_task(mode: str | None, task: Task) -> Task:
    return task.target_only() if mode == "scratch" else task


EXPERIMENTS: dict[str, Callable[[ExperimentConfig], ExperimentResult]] = {
    "popularity": _popularity,
    "ease-target": partial(_ease, target_only=True),
    "ease": partial(_ease, target_only=False),
    **{mode: partial(_mode, mode=mode) for mode in MODES},
    "auto": _auto,
}
"""Every baseline, every mode, and the choice among them."""
TARGET_ONLY = ("popularity", "ease-target", "scratch")
"""What knows the target alone."""


@dataclass(frozen=True)
class ResultRow:
    """One kind of trial over several seeds: ``results`` has one a seed. Its figures are None where ``failure`` is told."""

    name: str
    results: tuple[ExperimentResult, ...]

    @property
    def failure(self) -> str:
        return next((result.failure for result in self.results if result.failure), "")

    @property
    def values(self) -> Doubles:
        """NDCG@10 of each test row, mean over seeds, (m,)."""
        mean: Doubles = np.mean([result.values for result in self.results], 0)
        return mean

    @property
    def validation(self) -> float | None:
        found = [result.validation for result in self.results if result.validation is not None]
        return float(np.mean(found)) if len(found) == len(self.results) else None

    def to_json(self, users: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return its figures; ``users`` (m,) asked the test rows."""
        head = {"name": self.name, "validation_ndcg@10": self.validation}
        if self.failure:
            return {
                **head,
                "ndcg@10": None,
                "ndcg@10.se": None,
                "by_seed": [],
                "chosen": [],
                "why": self.failure,
            }
        estimate = clustered_mean(self.values, users)
        return nan_to_none(
            {
                **head,
                "ndcg@10": estimate.mean,
                "ndcg@10.se": estimate.se,
                "by_seed": [float(result.values.mean()) for result in self.results],
                "chosen": [result.chosen for result in self.results if result.chosen],
                "why": "",
            }
        )


def compare(of: ResultRow, over: ResultRow, users: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the paired lift on the test rows as a row of a report."""
    return lift_json(of.name, over.name, paired_lift(of.values, over.values, users))


def best_row(rows: Sequence[ResultRow]) -> ResultRow:
    """Return the row that is strongest on the test rows."""
    return max((row for row in rows if not row.failure), key=lambda row: float(row.values.mean()))
