"""Fit one transfer mode: tune its hyperparameters on validation rows, or obey those given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.data.vocabulary import build_vocabulary
from tlrec_edge.linear.interest import fit_interest, interest_groups
from tlrec_edge.linear.item_weights import USER_POWER, fit_item_weights, fit_target_item_weights
from tlrec_edge.linear.matrices import InteractionMatrices
from tlrec_edge.linear.ranking import ALL, Columns, ndcg, sample_rows
from tlrec_edge.linear.tuning import EaseHyperparameters, tune_ease, tune_target_ease
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit import FitConfig
from tlrec_edge.train.model import numpy_copy
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.plan import (
    LINEAR_PARTS,
    SCORE_WEIGHTS,
    TARGET_ALONE,
    TUNING,
    visible_task,
)
from tlrec_edge.train.score_weights import TunedWeights, served_bias, tune_score_weights
from tlrec_edge.train.setup import Context, TrainingSetup, fit_net, training_examples
from tlrec_edge.train.user_histories import UserHistories
from tlrec_edge.types import Ints, Scores

EPOCHS_WITHOUT_VALIDATION = 5
"""Most epochs if no validation row can stop the training earlier."""


@dataclass(frozen=True)
class Hyperparameters:
    """What validation chose for one mode; the final model is fitted with exactly these."""

    epochs: int
    linear: EaseHyperparameters
    weights: TunedWeights


@dataclass(frozen=True)
class FittedModel:
    """A model and the hyperparameters that fit it again."""

    mode: str
    model: EdgeModel
    hyperparameters: Hyperparameters


def fit_mode(
    context: Context,
    mode: str,
    hyperparameters: Hyperparameters | None = None,
    linear: EaseHyperparameters | None = None,
) -> FittedModel:
    """Fit a transfer mode on the training part of the context's task.

    With ``hyperparameters`` the task's rows are not read: those of a final task are the test rows.
    Without, hyperparameters are tuned on the rows; ``linear`` is the part that is known already.
    """
    progress = context.progress
    if hyperparameters is not None:
        linear = hyperparameters.linear
    else:
        linear = _tune_linear(context, mode, linear)
        progress.begin(mode)
    setup = MODES[mode](context)
    task, config = setup.task, context.config
    if linear.repeat_bias < 0:
        # Items are seldom bought again, and the score has a part for that. The network must not
        # learn it a second time from negatives that the user already has.
        setup = replace(setup, mask_seen=True)
    fixed_epochs = hyperparameters.epochs if hyperparameters is not None else None
    setup, epochs = _train_network(setup, context, fixed_epochs)
    setup.net.requires_grad_(False).eval()
    progress.doing("linear parts", LINEAR_PARTS)
    model = _with_linear_parts(setup, context, mode, linear)
    if hyperparameters is not None:
        weights = hyperparameters.weights
    else:
        progress.doing("weights of the parts in the score", SCORE_WEIGHTS)
        weights = tune_score_weights(model, context.dataset, task, mode, config.parts)
        progress.end(_outcome(epochs, weights.ndcg), repeated=True)
    model = with_score_weights(model, task, weights)
    return FittedModel(mode, model, Hyperparameters(epochs, linear, weights))


def _outcome(epochs: int, ndcg: float) -> str:
    """Describe a fit: the epoch that was best, and the NDCG@10 on the validation rows if any."""
    trained = f"best after {counted(epochs, 'epoch')}" if epochs else "not trained further"
    return trained if np.isnan(ndcg) else f"{trained}, validation {ndcg:.4f}"


def with_score_weights(model: EdgeModel, task: Task, weights: TunedWeights) -> EdgeModel:
    """Return the model with tuned score weights and bias."""
    bias = served_bias(model, task, weights.half_life)
    return replace(model, score_weights=weights.weights, bias=bias)


def _tune_linear(
    context: Context, mode: str, known: EaseHyperparameters | None
) -> EaseHyperparameters:
    """Tune the item-item weights, but for what is ``known``; zero-shot has the defaults."""
    if mode == "zero-shot":
        return EaseHyperparameters()
    if known is not None and known.target_penalty is not None:
        return known
    progress, config = context.progress, context.config
    task = visible_task(context.task, mode)
    rows = build_vocabulary(context.dataset, task, config.min_buyers).rows
    if known is None:
        progress.begin(TUNING)
    linear = known or tune_ease(
        task,
        InteractionMatrices.of(task, rows),
        progress,
        USER_POWER,
        max_weights=config.wide_weights,
        tune_repeats="repeat" in config.parts,
    )
    with progress.within(TARGET_ALONE):
        target_penalty = tune_target_ease(task, rows, config.wide_weights, progress)
    if known is None:
        progress.end(f"penalty {linear.penalty:g}, validation {linear.ndcg:.4f}")
    return replace(linear, target_penalty=target_penalty)


def _train_network(
    setup: TrainingSetup, context: Context, epochs: int | None
) -> tuple[TrainingSetup, int]:
    """Train the network for so many epochs; None: until validation stops improving.

    Returns the setup and the number of epochs, 0 if the network was not trained.
    """
    run = _fit_config(setup, context.config, epochs)
    if run is None:
        return setup, 0
    validate = None
    if epochs is None and len(setup.task.rows):
        validate = _two_tower_ndcg(setup, context.dataset)
    examples = training_examples(setup, context.config)
    setup, result = fit_net(setup, context, examples, run, validate)
    return setup, result.epochs


def _fit_config(setup: TrainingSetup, config: TrainConfig, epochs: int | None) -> FitConfig | None:
    """Return the hyperparameters of the training run; None if the network is not trained."""
    if setup.fit is None or epochs == 0:
        return None
    if epochs is not None:
        return replace(setup.fit, epochs=epochs)
    if "two_tower" not in config.parts or not _has_repeat_visitors(setup.task):
        return None
    if len(setup.task.rows):
        return setup.fit
    return replace(setup.fit, epochs=min(setup.fit.epochs, EPOCHS_WITHOUT_VALIDATION))


def _has_repeat_visitors(task: Task) -> bool:
    """Return whether a user has two interactions in the target, the least an example needs."""
    log = task.train.select(task.in_target(task.train))
    return bool(len(log)) and bool((np.bincount(log.user) > 1).any())


def _two_tower_ndcg(setup: TrainingSetup, dataset: Dataset) -> Callable[[], float]:
    """Return a function that ranks the task's rows by two-tower score and bias alone."""
    rows, items = setup.model.rows(dataset), len(setup.vocabulary.ids)
    histories = UserHistories.of(setup.task.history, rows, setup.task.n_users, items)
    sampled = sample_rows(setup.task)

    def value() -> float:
        setup.net.eval()
        # A copy, because a model caches its vectors and the network has changed since.
        model = replace(setup.model, bias=numpy_copy(setup.net.bias))

        def score(users: Ints, columns: Columns = ALL) -> Scores:
            parts = model.part_scores(histories, users, columns)
            return parts.two_tower + parts.bias

        return ndcg(score, sampled)

    return value


def _with_linear_parts(
    setup: TrainingSetup, context: Context, mode: str, linear: EaseHyperparameters
) -> EdgeModel:
    """Fit the linear parts and return the model with them and with the network's bias."""
    task, config, vocabulary = setup.task, context.config, setup.vocabulary
    outside_target = task.train.select(~task.in_target(task.train))
    if mode == "zero-shot":
        # No interaction of the target may be used: item-item weights come from the source alone.
        task = replace(task, train=outside_target)
    groups, group_count = interest_groups(
        context.dataset, vocabulary, np.unique(outside_target.item)
    )
    interest = fit_interest(
        task, groups, group_count, vocabulary, config.interest_penalty, config.interest_rank
    )
    wide, residual = fit_item_weights(
        task,
        InteractionMatrices.of(task, vocabulary.rows),
        linear.penalty,
        config.wide_weights,
        config.wide_rank,
    )
    return replace(
        setup.model,
        wide=wide,
        target_wide=fit_target_item_weights(
            task, vocabulary.rows, linear.target_penalty, config.wide_weights
        ),
        residual=residual,
        interest=interest,
        bias=numpy_copy(setup.net.bias),
        groups=groups if interest.rank else groups[:, :0],
    )
