"""Adapt to a target: choose on validation, then fit again on all that may be learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash, split_hash
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.errors import ModelError
from tlrec_edge.linear.interest import fit_interest, interest_groups
from tlrec_edge.linear.item_weights import USER_POWER, fit_item_weights, fit_target_item_weights
from tlrec_edge.linear.matrices import InteractionMatrices
from tlrec_edge.linear.ranking import ALL, Columns, ndcg, sample_rows
from tlrec_edge.linear.tuning import EaseHyperparameters, tune_ease, tune_target_ease
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel, UserHistories
from tlrec_edge.train.fit import Progress
from tlrec_edge.train.model import numpy_copy
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.provenance import ValidationChoices
from tlrec_edge.train.score_weights import TunedWeights, served_bias, tune_score_weights
from tlrec_edge.train.setup import Context, TrainingSetup, fit_net, training_examples
from tlrec_edge.types import Floats, Ints


@dataclass(frozen=True)
class Hyperparameters:
    """What validation decided for one mode; the final model is fitted with exactly these."""

    epochs: int
    linear: EaseHyperparameters
    weights: TunedWeights


@dataclass(frozen=True)
class FittedModel:
    """A model fitted without the validation rows, and the choices that a final fit would repeat."""

    mode: str
    model: EdgeModel
    hyperparameters: Hyperparameters


def adapt(
    dataset: Dataset,
    domains: tuple[str, ...],
    mode: str,
    source: EdgeModel | None = None,
    config: TrainConfig | None = None,
    fold: int | None = None,
    progress: Progress | None = None,
    linear: EaseHyperparameters | None = None,
    tasks: Tasks | None = None,
    checkpoint: Checkpoint | None = None,
) -> EdgeModel:
    """Make a model of the target: choose on validation, then fit again on all that may be learned from.

    ``linear`` reuses a choice made before on the same tasks, ``checkpoint`` holds the fits on disk. Raises ModelError for a
    mode that needs a source and has none, DataError for a domain or fold that does not exist.
    """
    if mode not in MODES:
        raise ModelError(f"unknown mode {mode!r}; known: auto, {', '.join(MODES)}")
    check_source(source, dataset, domains)
    config = config or config_of(source)
    tasks = tasks or make_tasks(dataset, domains, fold)
    if (
        mode == "zero-shot"
    ):  # nothing is chosen by the target's rows, so there is nothing to fit again
        tasks = replace(tasks, choose=tasks.final)
    context = Context(dataset, tasks.choose, source, config, progress, linear, checkpoint)
    fitted = fit_and_tune(context, mode)
    return refit(fitted, replace(context, task=tasks.final, linear=None), tasks, fold)


def check_source(source: EdgeModel | None, dataset: Dataset, domains: tuple[str, ...]) -> None:
    """Raise ModelError where the source may have learned what the target is validated or tested on."""
    if source is None:
        return
    if source.provenance.split_sha256 != split_hash(dataset):
        raise ModelError(
            "the source model was trained under another split than this dataset's: pretrain it again on this dataset"
        )
    seen = [name for name in domains if name in source.provenance.domains]
    if seen:
        raise ModelError(
            f"the source model has already learned from {', '.join(seen)}: pretrain on the other domains, "
            "or leave --from out and learn from all at once with --mode joint"
        )


def config_of(source: EdgeModel | None) -> TrainConfig:
    """Return the knobs the source was trained with, or the defaults."""
    return source.provenance.train if source is not None else TrainConfig()


def refit(fitted: FittedModel, context: Context, tasks: Tasks, fold: int | None) -> EdgeModel:
    """Fit a candidate again on all that may be learned from, and write down where it came from."""
    mode, hyperparameters = fitted.mode, fitted.hyperparameters
    model = fitted.model
    if len(tasks.final.train) > len(tasks.choose.train):
        model = _build(context, mode, hyperparameters)
    return model.with_provenance(
        kind="target",
        mode=mode,
        domains=context.task.domains,
        fold=fold,
        train=context.config,
        split_sha256=split_hash(context.dataset),
        dataset_sha256=dataset_hash(context.dataset),
        source=_source_domains(mode, context),
        choices=ValidationChoices(
            epochs=hyperparameters.epochs,
            penalty=hyperparameters.linear.penalty,
            own_penalty=hyperparameters.linear.target_penalty,
            half_life=hyperparameters.weights.half_life,
            score_weights=hyperparameters.weights.weights,
            validation_ndcg=hyperparameters.weights.ndcg
            if np.isfinite(hyperparameters.weights.ndcg)
            else None,
        ),
    )


def _source_domains(mode: str, context: Context) -> tuple[str, ...] | None:
    """Name the domains beside the target that the model learned from; None where there are none."""
    if mode == "scratch":
        return None
    if mode == "joint":
        train, names = context.task.train, context.dataset.domains
        return (
            tuple(names[i] for i in np.unique(train.domain[~context.task.in_target(train)])) or None
        )
    return None if context.source is None else context.source.provenance.domains


def fit_and_tune(context: Context, mode: str) -> FittedModel:
    """Fit a mode without the validation rows and choose its epochs, penalty and weights on them."""
    setup = MODES[mode](context)
    task = setup.task
    has_validation = bool(len(task.rows))
    linear = EaseHyperparameters() if mode == "zero-shot" else context.linear
    linear = linear or tune_ease(
        task,
        InteractionMatrices.of(task, setup.vocabulary.rows),
        context.progress,
        USER_POWER,
        max_weights=context.config.wide_weights,
        tune_repeats="repeat" in context.config.parts,
    )
    setup, epochs = _exclude_seen_negatives(setup, linear), 0
    if setup.fit is not None and _trainable(setup) and "deep" in context.config.parts:
        validate = _two_tower_ndcg(setup, context.dataset) if has_validation else None
        run = setup.fit if has_validation else replace(setup.fit, epochs=min(setup.fit.epochs, 5))
        setup, result = fit_net(
            setup, training_examples(setup, context.config), run, validate, context.progress
        )
        epochs = result.epochs
    setup = replace(setup, task=task)
    setup.net.requires_grad_(False).eval()
    if mode != "zero-shot" and linear.target_penalty is None:
        linear = replace(
            linear,
            target_penalty=tune_target_ease(
                task, setup.vocabulary.rows, context.config.wide_weights, context.progress
            ),
        )
    model = _with_linear(setup, context, mode, linear)
    weights = tune_score_weights(model, context.dataset, task, mode, context.config.parts)
    return FittedModel(
        mode, with_score_weights(model, task, weights), Hyperparameters(epochs, linear, weights)
    )


def with_score_weights(model: EdgeModel, task: Task, weights: TunedWeights) -> EdgeModel:
    """Return the model with tuned score weights and bias."""
    return replace(
        model, score_weights=weights.weights, bias=served_bias(model, task, weights.half_life)
    )


def _build(context: Context, mode: str, hyperparameters: Hyperparameters) -> EdgeModel:
    setup = MODES[mode](context)
    task = setup.task
    if setup.fit is not None and hyperparameters.epochs:
        run = replace(setup.fit, epochs=hyperparameters.epochs)
        setup = _exclude_seen_negatives(setup, hyperparameters.linear)
        setup, _ = fit_net(
            setup, training_examples(setup, context.config), run, None, context.progress
        )
    setup = replace(setup, task=task)
    setup.net.requires_grad_(False).eval()
    return with_score_weights(
        _with_linear(setup, context, mode, hyperparameters.linear), task, hyperparameters.weights
    )


def _exclude_seen_negatives(setup: TrainingSetup, linear: EaseHyperparameters) -> TrainingSetup:
    """Let the network learn without the items a user had among the negatives, where those are seldom bought again: they have a
    weight of their own in the score."""
    return (
        replace(setup, task=replace(setup.task, mask_seen=True))
        if linear.repeat_bias < 0
        else setup
    )


def _trainable(setup: TrainingSetup) -> bool:
    target_log = setup.task.train.select(setup.task.in_target(setup.task.train))
    return bool((np.bincount(target_log.user) > 1).any()) if len(target_log) else False


def _linear_task(task: Task, mode: str) -> Task:
    """Zero-shot may not learn from the target's rows; its own item-item weights come from the source alone."""
    return (
        replace(task, train=task.train.select(~task.in_target(task.train)))
        if mode == "zero-shot"
        else task
    )


def _with_linear(
    setup: TrainingSetup, context: Context, mode: str, linear: EaseHyperparameters
) -> EdgeModel:
    task, config, vocabulary = _linear_task(setup.task, mode), context.config, setup.vocabulary
    source_log = task.train.select(~task.in_target(task.train))
    groups, size = interest_groups(context.dataset, vocabulary, np.unique(source_log.item))
    interest = fit_interest(
        task, groups, size, vocabulary, config.interest_penalty, config.interest_rank
    )
    if not interest.rank:
        groups = groups[:, :0]
    wide, residual = fit_item_weights(
        InteractionMatrices.of(task, vocabulary.rows),
        linear.penalty,
        config.wide_weights,
        config.wide_rank,
    )
    bias = numpy_copy(setup.net.bias)
    target_wide = fit_target_item_weights(
        task, vocabulary.rows, linear.target_penalty, config.wide_weights
    )
    return replace(
        setup.model,
        wide=wide,
        target_wide=target_wide,
        residual=residual,
        interest=interest,
        bias=bias,
        groups=groups,
    )


def _two_tower_ndcg(setup: TrainingSetup, dataset: Dataset) -> Callable[[], float]:
    histories = UserHistories.of(
        setup.task.history, setup.model.rows(dataset), setup.task.n_users, len(setup.vocabulary.ids)
    )
    sampled = sample_rows(setup.task)

    def value() -> float:
        setup.net.eval()
        # A copy without the vectors cached for an earlier epoch.
        now = replace(setup.model, bias=numpy_copy(setup.net.bias))

        def towers(users: Ints, columns: Columns = ALL) -> Floats:
            two_tower, *_, bias = now.part_scores(histories, users, columns)
            return two_tower + bias

        return ndcg(towers, sampled)

    return value
