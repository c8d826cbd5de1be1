"""Adapt a model to a target with one of the transfer modes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.core.progress import Progress, Reporter
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash, split_hash
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import ModelError
from tlrec_edge.linear.tuning import EaseHyperparameters
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit_mode import FittedModel, Hyperparameters, fit_mode
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.plan import final_step, plan_mode
from tlrec_edge.train.provenance import ValidationChoices
from tlrec_edge.train.setup import Context


def adapt(
    dataset: Dataset,
    domains: tuple[str, ...],
    mode: str,
    source: EdgeModel | None = None,
    config: TrainConfig | None = None,
    fold: int | None = None,
    progress: Reporter | None = None,
    linear: EaseHyperparameters | None = None,
    tasks: Tasks | None = None,
    checkpoint: Checkpoint | None = None,
) -> EdgeModel:
    """Train a model for a target.

    Hyperparameters are tuned on the validation rows, by a model that was fitted without them. The
    returned model is then fitted again, with these hyperparameters and with all rows that the
    split allows for training. No test row is read.

    Args:
        dataset: A prepared dataset, with its split.
        domains: The target: one domain or several, ranked as one catalogue.
        mode: How to transfer: a key of ``MODES``. "scratch" and "joint" need no source.
        source: A model that ``pretrain`` returned for other domains of this dataset.
        config: Hyperparameters. None: those of the source, so that both have the same shape, or
            the defaults if there is no source.
        fold: The fold of users to hold out under the split "new-users"; None: no users are.
        progress: Follows the steps; a function receives lines of text. Its time budget may end
            the training and the search of hyperparameters early.
        linear: Hyperparameters of the item-item weights that were tuned before on the same tasks;
            None: they are tuned, which takes most of the time on large catalogues.
        tasks: The tasks of ``domains`` and ``fold`` if they exist already; None: they are made.
        checkpoint: Saves each epoch, so that an interrupted call can continue (see
            ``checkpoint.resumable``); None: nothing is saved.

    Returns:
        The model of the target; its provenance holds the hyperparameters that were chosen.

    Raises:
        ModelError: The mode is unknown or needs a source, or the source was trained on another
            split or on the target itself.
        DataError: A domain or the fold does not exist.
        TrainingError: The loss is not finite.
    """
    if mode not in MODES:
        raise ModelError(f"unknown mode {mode!r}; known: auto, {', '.join(MODES)}")
    check_source(source, dataset, domains)
    config = config or config_of(source)
    tasks = tasks or make_tasks(dataset, domains, fold)
    if mode == "zero-shot":
        # Nothing is tuned on the target's rows, so the first fit is already the final one.
        tasks = replace(tasks, choose=tasks.final)
    follow = Progress.of(progress)
    context = Context(dataset, tasks.choose, source, config, follow, checkpoint)
    final = replace(context, task=tasks.final)
    follow.plan(*plan_mode(context, final, mode, tune=linear is None))
    return refit(fit_mode(context, mode, linear=linear), final, tasks, fold)


def check_source(source: EdgeModel | None, dataset: Dataset, domains: tuple[str, ...]) -> None:
    """Raise ModelError if the source may have been trained on validation or test rows."""
    if source is None:
        return
    if source.provenance.split_sha256 != split_hash(dataset):
        raise ModelError(
            "the source model was trained under another split than this dataset's: "
            "pretrain it again on this dataset"
        )
    seen = [name for name in domains if name in source.provenance.domains]
    if seen:
        raise ModelError(
            f"the source model was already trained on {', '.join(seen)}: pretrain on the other "
            "domains, or leave --from out and train on all at once with --mode joint"
        )


def config_of(source: EdgeModel | None) -> TrainConfig:
    """Return the hyperparameters that the source was trained with, or the defaults."""
    return source.provenance.train if source is not None else TrainConfig()


def refit(fitted: FittedModel, context: Context, tasks: Tasks, fold: int | None) -> EdgeModel:
    """Fit a tuned model again on the final task, and record its provenance.

    ``context`` holds the final task. If that has no more training rows than the task that the
    model was fitted on, a second fit would give the same model and is left out. If they include
    validation rows, the result keeps the tuned model, so that ``compress`` can judge on rows that
    it has not learned.
    """
    mode, model, before, progress = fitted.mode, fitted.model, None, context.progress
    if len(tasks.final.train) > len(tasks.choose.train):
        epochs = fitted.hyperparameters.epochs
        progress.begin(final_step(context, mode, epochs))
        model = fit_mode(context, mode, fitted.hyperparameters).model
        progress.end(counted(epochs, "epoch"))
        before = fitted.model if tasks.final_learns_validation else None
    model = model.with_provenance(
        kind="target",
        mode=mode,
        domains=context.task.domains,
        fold=fold,
        train=context.config,
        split_sha256=split_hash(context.dataset),
        dataset_sha256=dataset_hash(context.dataset),
        source=_source_domains(mode, context),
        choices=_choices(fitted.hyperparameters),
        left_out=tuple(progress.left_out),
    )
    return model.with_before_refit(before)


def _choices(hyperparameters: Hyperparameters) -> ValidationChoices:
    linear, weights = hyperparameters.linear, hyperparameters.weights
    return ValidationChoices(
        epochs=hyperparameters.epochs,
        penalty=linear.penalty,
        target_penalty=linear.target_penalty,
        half_life=weights.half_life,
        score_weights=weights.weights,
        validation_ndcg=weights.ndcg if math.isfinite(weights.ndcg) else None,
    )


def _source_domains(mode: str, context: Context) -> tuple[str, ...] | None:
    """Return the domains other than the target that the model was trained on; None for none."""
    if mode == "scratch":
        return None
    if mode == "joint":
        train, names = context.task.train, context.dataset.domains
        others = np.unique(train.domain[~context.task.in_target(train)])
        return tuple(names[number] for number in others) or None
    return None if context.source is None else context.source.provenance.domains
