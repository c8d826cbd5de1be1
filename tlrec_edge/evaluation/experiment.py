"""One way of making a model, tried: what it reaches on validation, and on each question of the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.core.metrics import METRICS, Array, clustered_mean, lift_json, nan_to_none, paired_lift
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.linear.baselines import ease_scorer, popularity_scorer, fit_tuned_ease
from tlrec_edge.linear.ranking import Ranking, Scorer, rank_rows
from tlrec_edge.train.adapt import adapt, check_source, fit_and_tune, refit
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.score_weights import cross_fitted_ndcg
from tlrec_edge.train.setup import Context


@dataclass(frozen=True)
class Setting:
    """What a trial works with; ``source`` is for the modes that start from one."""

    dataset: Dataset
    tasks: Tasks
    config: TrainConfig
    source: EdgeModel | None = None
    fold: int | None = None


class Outcome(NamedTuple):
    """NDCG@10 on validation, None where nothing is asked there, and of each test row (m,); ``chosen`` is auto's mode.

    ``why`` says what kept the trial from being made; its figures are then empty.
    """

    validation: float | None
    values: Array
    chosen: str = ""
    why: str = ""


def refused(why: str) -> Outcome:
    """Return the outcome of a trial that could not be made."""
    return Outcome(None, np.empty(0), why=why)


def _popularity(setting: Setting) -> Outcome:
    return _outcome(setting.tasks, popularity_scorer, popularity_scorer)


def _ease(setting: Setting, target_only: bool) -> Outcome:
    scorer, final, choice = fit_tuned_ease(setting.tasks, target_only)
    choose = setting.tasks.choose.target_only() if target_only else setting.tasks.choose
    return _outcome(Tasks(choose, final), lambda task: ease_scorer(task, choice), lambda _: scorer)


def _outcome(tasks: Tasks, choose: Callable[[Task], Scorer], final: Callable[[Task], Scorer]) -> Outcome:
    """Rank the validation rows and the test rows, each with a scorer that was fitted without them."""
    validation = rank_rows(choose(tasks.choose), tasks.choose) if len(tasks.choose.rows) else None
    return Outcome(float(_ndcg(validation).mean()) if validation else None, _ndcg(rank_rows(final(tasks.final), tasks.final)))


def _ndcg(ranking: Ranking) -> Array:
    return METRICS["ndcg"](ranking.rank, 10)


def _auto(setting: Setting) -> Outcome:
    dataset, tasks, fold = setting.dataset, setting.tasks, setting.fold
    model, table = adapt_auto(dataset, tasks.final.domains, setting.source, setting.config, fold, tasks=tasks)
    chosen = next(line for line in table if line.chosen)
    task = _seen_by(model.provenance.mode, tasks.final)
    return Outcome(chosen.ndcg, _ndcg(rank_rows(model.scorer(dataset, task), task)), chosen.mode)


def _mode(setting: Setting, mode: str) -> Outcome:
    """Fit and choose as ``adapt`` does, keeping the model that was fitted without the validation rows."""
    dataset, tasks, config, source = setting.dataset, setting.tasks, setting.config, setting.source
    check_source(source, dataset, tasks.final.domains)
    fitted = fit_and_tune(Context(dataset, tasks.choose, source, config), mode)
    if mode == "zero-shot":
        model = adapt(dataset, tasks.final.domains, mode, source, config, setting.fold, tasks=tasks)
    else:
        model = refit(fitted, Context(dataset, tasks.final, source, config), tasks, setting.fold)
    validation_task, final = _seen_by(mode, tasks.choose), _seen_by(mode, tasks.final)
    validation = None
    if len(validation_task.rows):  # judged as auto judges
        validation = float(cross_fitted_ndcg(fitted.model, dataset, validation_task, mode, config.parts)[0].mean())
    return Outcome(validation, _ndcg(rank_rows(model.scorer(dataset, final), final)))


def _seen_by(mode: str | None, task: Task) -> Task:
    return task.target_only() if mode == "scratch" else task


TRIALS: dict[str, Callable[[Setting], Outcome]] = {
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
class Line:
    """One kind of trial over several seeds: ``outcomes`` has one a seed. Its figures are None where ``why`` is told."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def why(self) -> str:
        return next((outcome.why for outcome in self.outcomes if outcome.why), "")

    @property
    def values(self) -> Array:
        """NDCG@10 of each test row, mean over seeds, (m,)."""
        mean: Array = np.mean([outcome.values for outcome in self.outcomes], 0)
        return mean

    @property
    def validation(self) -> float | None:
        found = [outcome.validation for outcome in self.outcomes if outcome.validation is not None]
        return float(np.mean(found)) if len(found) == len(self.outcomes) else None

    def to_json(self, users: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return its figures; ``users`` (m,) asked the test rows."""
        head = {"name": self.name, "validation_ndcg@10": self.validation}
        if self.why:
            return {**head, "ndcg@10": None, "ndcg@10.se": None, "by_seed": [], "chosen": [], "why": self.why}
        estimate = clustered_mean(self.values, users)
        return nan_to_none({
            **head, "ndcg@10": estimate.mean, "ndcg@10.se": estimate.se,
            "by_seed": [float(outcome.values.mean()) for outcome in self.outcomes],
            "chosen": [outcome.chosen for outcome in self.outcomes if outcome.chosen], "why": "",
        })  # fmt: skip


def compare(of: Line, over: Line, users: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the paired lift on the test rows as a row of a report."""
    return lift_json(of.name, over.name, paired_lift(of.values, over.values, users))


def best_of(lines: Sequence[Line]) -> Line:
    """Return the line that is strongest on the test rows."""
    return max((line for line in lines if not line.why), key=lambda line: float(line.values.mean()))
