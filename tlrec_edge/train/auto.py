"""Choose how to transfer, or not to: the simplest option that no other is shown to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tlrec_edge.core.metrics import Lift, paired_lift
from tlrec_edge.core.progress import Progress, Reporter
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.train.adapt import check_source, config_of, refit
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit_mode import FittedModel, fit_mode, with_score_weights
from tlrec_edge.train.model import numpy_copy
from tlrec_edge.train.plan import (
    COMPARISON,
    POOLED,
    SCORE_WEIGHTS,
    SIMPLE,
    least_work,
    plan_auto,
    visible_task,
)
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
"""The options, from simple to complex. The first three use the target alone; ``pooled`` is
``linear`` over all domains."""
TRANSFER = frozenset(COMPLEXITY_ORDER[3:])
"""The options that transfer."""
TRANSFER_MODES = ("zero-shot", "frozen", "finetune", "joint")
"""The modes that transfer, from simple to complex: in this order they are fitted."""
TRANSFER_MEAN = "transfer, on average"
"""The row of the table that decides whether transfer is used: the mean of the ways to transfer."""
_LINEAR = ("wide", "target_wide", "residual", "bias")
PARTS_OF = {"popularity": ("bias",), "linear": _LINEAR, "pooled": _LINEAR}
"""The parts of the simple options; the others have all."""
ERRORS_TO_TRANSFER = 2.0
"""Standard errors that a more complex option needs to replace a simpler one."""
ERRORS_TO_SIMPLIFY = 1.0
"""Standard errors within which a simpler way to transfer replaces the best one."""


def adapt_auto(
    dataset: Dataset,
    domains: tuple[str, ...],
    source: EdgeModel | None = None,
    config: TrainConfig | None = None,
    fold: int | None = None,
    progress: Reporter | None = None,
    tasks: Tasks | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[EdgeModel, tuple[ModeComparison, ...]]:
    """Try every mode on the validation rows, and fit the winner.

    Among the options that use the target alone, a more complex one wins if its paired lift is two
    standard errors, clustered by user. Transfer wins over that option if its ways (without
    zero-shot) reach the same on average: this is one test, so more ways to transfer do not make it
    easier. Of the ways to transfer, the simplest wins that the best does not beat by one standard
    error (Breiman et al., Classification and Regression Trees, 1984). Score weights are tuned on
    other users than they are judged on.

    Args:
        dataset: A prepared dataset, with its split.
        domains: The target: one domain or several, ranked as one catalogue.
        source: A model that ``pretrain`` returned; None: only the target alone is used.
        config: Hyperparameters; None: those of the source, or the defaults without a source.
        fold: The fold of users to hold out under the split "new-users"; None: no users are.
        progress: Follows the steps; a function receives lines of text. Modes that its time budget
            leaves no time for are not tried; ``provenance.left_out`` names them.
        tasks: The tasks of ``domains`` and ``fold`` if they exist already; None: they are made.
        checkpoint: Saves each epoch (see ``checkpoint.resumable``); None saves nothing.

    Returns:
        The model, and the table of comparisons that chose its mode.

    Raises:
        DataError: The split has no validation rows, or a domain or the fold does not exist.
        ModelError: The source was trained on another split or on the target itself.
        TrainingError: A loss is not finite.
    """
    check_source(source, dataset, domains)
    config = config or config_of(source)
    tasks = tasks or make_tasks(dataset, domains, fold)
    if not len(tasks.choose.rows):
        raise DataError(
            "--mode auto chooses on validation rows and this split leaves none: name a mode"
        )
    follow = Progress.of(progress)
    context = Context(dataset, tasks.choose, source, config, follow, checkpoint)
    final = replace(context, task=tasks.final)
    follow.plan(*plan_auto(context, final, () if source is None else TRANSFER_MODES))
    options = _fit_options(context)
    values, users = {}, tasks.choose.rows.user
    follow.begin(COMPARISON)
    for number, (name, fitted) in enumerate(options.items(), 1):
        text = f"{name}, {number} of {len(options)}"
        follow.doing(text, SCORE_WEIGHTS, number, len(options))
        parts = _parts_of(name, config)
        task = visible_task(context.task, fitted.mode)
        values[name], users = cross_fitted_ndcg(fitted.model, dataset, task, fitted.mode, parts)
    winner, table = _compare_modes(values, users)
    follow.end(f"chose {winner}")
    model = refit(options[winner], final, tasks, fold)
    return model.with_provenance(auto=table, choice=winner), table


def _fit_options(context: Context) -> dict[str, FittedModel]:
    """Fit every option without the validation rows; without a source only the first three."""
    progress = context.progress
    scratch = fit_mode(context, "scratch")
    options = {"scratch": scratch}
    progress.begin(SIMPLE)
    for number, name in enumerate(("popularity", "linear"), 1):
        progress.doing(name, SCORE_WEIGHTS, number, 2)
        options[name] = _with_parts_of(name, scratch, context)
    progress.end()
    if context.source is None:
        return options
    linear = None
    for mode in TRANSFER_MODES:
        tune = linear is None and mode != "zero-shot"
        if not progress.fits(least_work(context, mode, tune), repeated=True):
            progress.leave_out(mode)
            continue
        # The item-item weights depend on the task alone: they are tuned once for all modes.
        options[mode] = fit_mode(context, mode, linear=linear)
        if mode != "zero-shot":
            linear = options[mode].hyperparameters.linear
    base = options.get("finetune") or options.get("frozen")
    if base is None:
        progress.leave_out("pooled")
        return options
    progress.begin(POOLED)
    progress.doing("weights of the parts in the score", SCORE_WEIGHTS)
    options["pooled"] = _with_parts_of("pooled", base, context)
    progress.end()
    return options


def _parts_of(option: str, config: TrainConfig) -> tuple[str, ...]:
    parts = PARTS_OF.get(option, config.parts)
    return tuple(part for part in parts if part in config.parts)


def _with_parts_of(option: str, fitted: FittedModel, context: Context) -> FittedModel:
    """Reduce a fitted model to the parts of a simple option, and tune their weights again."""
    task = visible_task(context.task, fitted.mode)
    model = replace(fitted.model, bias=numpy_copy(fitted.model.net.bias))
    parts = _parts_of(option, context.config)
    weights = tune_score_weights(model, context.dataset, task, fitted.mode, parts)
    hyperparameters = replace(fitted.hyperparameters, weights=weights)
    return FittedModel(fitted.mode, with_score_weights(model, task, weights), hyperparameters)


def _compare_modes(
    values: Mapping[str, Doubles], users: Ints
) -> tuple[str, tuple[ModeComparison, ...]]:
    """Return the winner by NDCG@10 of each validation row, and all comparisons made."""
    best, rows = COMPLEXITY_ORDER[0], []

    def compare(name: str, option: Doubles, baseline: str) -> Lift:
        lift = paired_lift(option, values[baseline], users)
        rows.append((name, float(option.mean()), baseline, lift.mean, lift.se))
        return lift

    fitted = [name for name in COMPLEXITY_ORDER if name in values]
    for name in fitted:
        if name not in TRANSFER:
            lift = compare(name, values[name], best)
            if _is_at_least(lift, ERRORS_TO_TRANSFER):
                best = name
    transfer = [name for name in fitted if name in TRANSFER]
    for name in transfer:
        compare(name, values[name], best)
    tuned = [values[name] for name in transfer if name != "zero-shot"]
    if tuned:
        mean: Doubles = np.mean(tuned, 0)
        if _is_at_least(compare(TRANSFER_MEAN, mean, best), ERRORS_TO_TRANSFER):
            best = _simplest_transfer(values, transfer, users)
    return best, tuple(ModeComparison(*row, chosen=row[0] == best) for row in rows)


def _simplest_transfer(values: Mapping[str, Doubles], transfer: list[str], users: Ints) -> str:
    """Return the simplest way to transfer that the best does not clearly beat."""
    strongest = max(transfer, key=lambda name: float(values[name].mean()))
    for name in transfer:
        if not _is_at_least(
            paired_lift(values[strongest], values[name], users), ERRORS_TO_SIMPLIFY
        ):
            return name
    return strongest


def _is_at_least(lift: Lift, errors: float) -> bool:
    return lift.se > 0 and lift.mean >= errors * lift.se
