"""The steps of adapting, known before any work, and roughly how much work each is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.core.progress import Step, Work
from tlrec_edge.data.task import Task
from tlrec_edge.linear.sparse_ease import EXACT_EASE_LIMIT
from tlrec_edge.linear.tuning import EXPECTED_PENALTIES, MAX_TUNING_ROWS, SOLUTIONS
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.fit import EPOCHS, FitConfig
from tlrec_edge.train.pretrain import default_epochs
from tlrec_edge.train.setup import Context

TUNING, SIMPLE, POOLED, COMPARISON, FINAL = (
    "EASE",
    "popularity and linear",
    "pooled",
    "comparison",
    "final fit",
)
"""Names of the steps that are not transfer modes."""
PRETRAINING, TARGET_ALONE = "pretraining:", "of the target alone:"
"""Parts of a step (see ``Progress.within``)."""
LINEAR_PARTS, SCORE_WEIGHTS = "linear parts", "score weights"
"""Kinds of work, besides ``EPOCHS`` and ``SOLUTIONS``."""
TUNING_SHARE, FIT_SHARE = 1 / 3, 1 / 2
"""Shares of the time left: a fit comes after tuning, and the final fit takes as long again."""
# Rough speeds of one core. The time left is estimated by the speeds that are measured.
_SECONDS_PER_MULTIPLICATION = 2e-11
_SECONDS_PER_SPARSE_ITEM = 5e-4
_SECONDS_PER_ROW = 7e-4
_SECONDS_PER_EXAMPLE = {"fast": 1e-4, "base": 3e-4}
_LONGER_EPOCHS = {"scratch": 1.0, "frozen": 3.0, "finetune": 4.5, "joint": 4.5}
"""Factor on the time of an epoch: histories of all domains are longer, and more is trained."""


def visible_task(task: Task, mode: str | None) -> Task:
    """Return the part of a task that models of a transfer mode may read.

    A model that was trained on the target alone reads only what users did in the target.
    """
    return task.target_only() if mode == "scratch" else task


def tuning_step(context: Context, mode: str) -> Step:
    """Return the search of the item-item weights' hyperparameters."""
    task = visible_task(context.task, mode)
    work = {SOLUTIONS: EXPECTED_PENALTIES * _seconds_to_solve(task)}
    if has_other_domains(task):
        target = EXPECTED_PENALTIES * _seconds_to_solve(task.target_only())
        work[f"{TARGET_ALONE} {SOLUTIONS}"] = target
    return Step(TUNING, data_name(task), work, share=TUNING_SHARE)


def fit_step(context: Context, mode: str) -> Step:
    """Return the fit of a mode on the validation task."""
    task = visible_task(context.task, mode)
    work = _work_of_fit(task, context.config, mode, context.config.epochs)
    work[SCORE_WEIGHTS] = _seconds_of_score_weights(task)
    early = mode != "zero-shot"
    return Step(mode, data_name(task), work, stops_early=early, share=FIT_SHARE)


def final_step(context: Context, mode: str, epochs: int) -> Step:
    """Return the fit of the final model, on the final task."""
    task = visible_task(context.task, mode)
    data = f"{mode}, {data_name(task)}"
    return Step(FINAL, data, _work_of_fit(task, context.config, mode, epochs))


def plan_mode(context: Context, final: Context, mode: str, tune: bool) -> list[Step]:
    """Return the steps of ``adapt``."""
    steps = [tuning_step(context, mode)] if tune and mode != "zero-shot" else []
    steps.append(fit_step(context, mode))
    if len(final.task.train) > len(context.task.train):
        steps.append(final_step(final, mode, context.config.epochs))
    return steps


def plan_auto(context: Context, final: Context, transfer: Sequence[str]) -> list[Step]:
    """Return the steps of ``adapt_auto``; ``transfer`` are the modes that it tries, in order."""
    weights = _seconds_of_score_weights(context.task)
    target, everything = (data_name(task) for task in (context.task.target_only(), context.task))
    steps = [tuning_step(context, "scratch"), fit_step(context, "scratch")]
    steps.append(Step(SIMPLE, target, {SCORE_WEIGHTS: 2 * weights}))
    if transfer:
        fits = [fit_step(context, mode) for mode in transfer]
        steps += [fits[0], tuning_step(context, "finetune"), *fits[1:]]
        steps.append(Step(POOLED, everything, {SCORE_WEIGHTS: weights}))
    options = 3 + (1 + len(transfer) if transfer else 0)
    steps.append(Step(COMPARISON, work={SCORE_WEIGHTS: weights * options / 3}))
    if len(final.task.train) > len(context.task.train):
        longest = final_step(final, "finetune" if transfer else "scratch", context.config.epochs)
        steps.append(Step(FINAL, "the chosen option", longest.work, stops_early=True))
    return steps


def least_work(context: Context, mode: str, tune: bool) -> Work:
    """Return the work of a mode's fit of one epoch, after one penalty if it is to ``tune``."""
    fit = fit_step(context, mode).work
    work = {**fit, EPOCHS: fit.get(EPOCHS, 0.0) / max(context.config.epochs, 1)}
    if tune:
        work[SOLUTIONS] = _seconds_to_solve(context.task)
    return work


def data_name(task: Task) -> str:
    """Name the target, and how many other domains a task has: "t1 + 3 domains"."""
    counts = np.bincount(task.train.domain)
    counts[task.target[task.target < len(counts)]] = 0
    others = int(np.count_nonzero(counts))
    target = ", ".join(task.domains) if len(task.domains) <= 3 else f"{len(task.domains)} domains"
    return f"{target} + {counted(others, 'domain')}" if others else target


def has_other_domains(task: Task) -> bool:
    """Return whether the task's training data has domains besides the target."""
    return not bool(task.in_target(task.train).all())


def _work_of_fit(task: Task, config: TrainConfig, mode: str, epochs: int) -> dict[str, float]:
    own = task.target_only()
    work = {LINEAR_PARTS: 1.5 * _seconds_to_solve(task)}
    if has_other_domains(task):
        work[LINEAR_PARTS] += _seconds_to_solve(own)
    per_example = _SECONDS_PER_EXAMPLE[config.size]
    if mode != "zero-shot":
        examples = min(len(own.train), FitConfig.examples)
        work[EPOCHS] = epochs * examples * per_example * _LONGER_EPOCHS.get(mode, 1.0)
    if mode == "joint":
        examples = len(task.train)
        count = config.pretrain_epochs or default_epochs(examples)
        seconds = count * min(examples, FitConfig.examples) * per_example
        work[f"{PRETRAINING} {EPOCHS}"] = seconds
    return work


def _seconds_to_solve(task: Task) -> float:
    """Return the rough seconds of a solution of EASE and a ranking of the validation rows."""
    columns = task.train.item, task.train.user
    items, users = (int(np.count_nonzero(np.bincount(column))) for column in columns)
    ranking = min(len(task.rows), MAX_TUNING_ROWS) * _SECONDS_PER_ROW
    if min(items, users) > EXACT_EASE_LIMIT:
        return ranking + items * _SECONDS_PER_SPARSE_ITEM
    return ranking + min(items, users) ** 2 * items * _SECONDS_PER_MULTIPLICATION


def _seconds_of_score_weights(task: Task) -> float:
    return 0.5 + 1.5 * min(len(task.rows), MAX_TUNING_ROWS) * _SECONDS_PER_ROW
