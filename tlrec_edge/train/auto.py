"""Choose how to transfer, or not to: the simplest candidate that no other is shown to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tlrec_edge.core.metrics import Lift, paired_lift
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.train.adapt import (
    FittedModel,
    check_source,
    config_of,
    fit_and_tune,
    refit,
    with_score_weights,
)
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit import Progress
from tlrec_edge.train.model import numpy_copy
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.provenance import ModeComparison
from tlrec_edge.train.score_weights import cross_fitted_ndcg, tune_score_weights
from tlrec_edge.train.setup import Context
from tlrec_edge.types import Doubles, Ints

COMPLEXITY_ORDER = (
    "popularity",
    "linear",
    "scratch",
    "pooled",
    "zero-shot",
    "frozen",
    "finetune",
    "joint",
)
"""Candidates from simple to complex; the first three know the target alone, ``pooled`` is linear over all domains."""
TRANSFER = frozenset(COMPLEXITY_ORDER[3:])
TRANSFER_MEAN = "transfer, on average"
"""The line of the table that says whether transfer is taken: the mean of its ways."""
_LINEAR = ("wide", "own", "rest", "bias")
PARTS_OF = {"popularity": ("bias",), "linear": _LINEAR, "pooled": _LINEAR}
"""The parts of the simple candidates; the others have all."""


def adapt_auto(
    dataset: Dataset,
    domains: tuple[str, ...],
    source: EdgeModel | None = None,
    config: TrainConfig | None = None,
    fold: int | None = None,
    progress: Progress | None = None,
    tasks: Tasks | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[EdgeModel, tuple[ModeComparison, ...]]:
    """Try every mode on the validation rows and fit the winner; return it with the table that chose it.

    Of what knows the target alone, the more complex takes over with a paired lift of two standard errors, clustered by
    user. Transfer takes over from that where its ways, zero-shot aside, do so on average: one test, which the number of
    ways does not make easier. Among them the simplest is taken that the best does not beat by one standard error
    (Breiman et al., Classification and Regression Trees, 1984). A candidate's weights are judged by other users than
    they were chosen on. Raises DataError where the split leaves no validation rows to choose by.
    """
    check_source(source, dataset, domains)
    config = config or config_of(source)
    tasks = tasks or make_tasks(dataset, domains, fold)
    if not len(tasks.choose.rows):
        raise DataError(
            "--mode auto chooses on validation rows and this split leaves none: name a mode"
        )
    context = Context(dataset, tasks.choose, source, config, progress, checkpoint=checkpoint)
    fitted_models = _fit_modes(context)
    users, values = tasks.choose.rows.user, {}
    for name, fitted in fitted_models.items():
        task = _task(fitted, context)
        use = tuple(part for part in PARTS_OF.get(name, config.parts) if part in config.parts)
        values[name], users = cross_fitted_ndcg(fitted.model, dataset, task, fitted.mode, use)
    winner, table = _compare_modes(values, users)
    model = refit(
        fitted_models[winner], replace(context, task=tasks.final, progress=progress), tasks, fold
    )
    return model.with_provenance(auto=table, choice=winner), table


def _fit_modes(context: Context) -> dict[str, FittedModel]:
    scratch = fit_and_tune(context, "scratch")
    found = {
        "popularity": _with_parts(scratch, context, PARTS_OF["popularity"]),
        "linear": _with_parts(scratch, context, PARTS_OF["linear"]),
        "scratch": scratch,
    }
    if context.source is not None:
        tuned = fit_and_tune(context, "finetune")
        shared = replace(context, linear=tuned.hyperparameters.linear)
        found |= {
            mode: tuned if mode == "finetune" else fit_and_tune(shared, mode)
            for mode in MODES
            if mode != "scratch"
        }
        found["pooled"] = _with_parts(tuned, context, PARTS_OF["pooled"])
    return found


def _with_parts(fitted: FittedModel, context: Context, use: tuple[str, ...]) -> FittedModel:
    """Return the candidate with some parts only, their weights chosen again."""
    task = _task(fitted, context)
    use = tuple(part for part in use if part in context.config.parts)
    plain = replace(fitted.model, bias=numpy_copy(fitted.model.net.bias))
    weights = tune_score_weights(plain, context.dataset, task, fitted.mode, use)
    hyperparameters = replace(fitted.hyperparameters, weights=weights)
    return FittedModel(fitted.mode, with_score_weights(plain, task, weights), hyperparameters)


def _task(fitted: FittedModel, context: Context) -> Task:
    return context.task.target_only() if fitted.mode == "scratch" else context.task


def _compare_modes(
    values: Mapping[str, Doubles], users: Ints
) -> tuple[str, tuple[ModeComparison, ...]]:
    best, rows = COMPLEXITY_ORDER[0], []

    def compare(name: str, found: Doubles, over: str) -> Lift:
        lift = paired_lift(found, values[over], users)
        rows.append((name, float(found.mean()), over, lift.mean, lift.se))
        return lift

    for name in (name for name in COMPLEXITY_ORDER if name in values and name not in TRANSFER):
        if _beats(compare(name, values[name], best), 2.0):
            best = name
    transfer_modes = [name for name in COMPLEXITY_ORDER if name in values and name in TRANSFER]
    for name in transfer_modes:
        compare(name, values[name], best)
    if transfer_modes:
        mean: Doubles = np.mean([values[name] for name in transfer_modes if name != "zero-shot"], 0)
        if _beats(compare(TRANSFER_MEAN, mean, best), 2.0):
            strongest = max(transfer_modes, key=lambda name: float(values[name].mean()))
            lifts_of_best = {
                name: paired_lift(values[strongest], values[name], users) for name in transfer_modes
            }
            best = next(name for name, lift in lifts_of_best.items() if not _beats(lift, 1.0))
    return best, tuple(ModeComparison(*row, row[0] == best) for row in rows)


def _beats(lift: Lift, errors: float) -> bool:
    return lift.se > 0 and lift.mean >= errors * lift.se
