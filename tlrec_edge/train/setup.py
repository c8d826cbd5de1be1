"""A network before it is trained for a target: where it starts from, and one way to train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tlrec_edge.core.features import FeatureEncoder, TowerInputs
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.data.vocabulary import Vocabulary, build_vocabulary
from tlrec_edge.errors import ModelError
from tlrec_edge.linear.low_rank import LowRankFactors
from tlrec_edge.linear.matrices import empty_matrix
from tlrec_edge.linear.priors import log_popularity
from tlrec_edge.linear.tuning import EaseHyperparameters
from tlrec_edge.train.align import Alignment, make_alignment
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import ScoreWeights, TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.examples import Examples
from tlrec_edge.train.fit import FitConfig, FitResult, Progress, fit
from tlrec_edge.train.item_features import cooccurrence_vectors, encode_features, fit_features
from tlrec_edge.train.model import AGE_BUCKETS, ModelConfig, TwoTower, numpy_copy
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.types import Ints


@dataclass(frozen=True)
class Context:
    """What a transfer mode works with: the data, the task, the source model if there is one."""

    dataset: Dataset
    task: Task
    source: EdgeModel | None
    config: TrainConfig
    progress: Progress | None = None
    linear: EaseHyperparameters | None = None
    checkpoint: Checkpoint | None = None

    def inputs(self, features: FeatureEncoder, rows: Ints) -> TowerInputs:
        """Encode dataset rows for the item tower."""
        return encode_features(self.dataset, features, rows, self.config.text)


@dataclass(frozen=True)
class TrainingSetup:
    """A network over a vocabulary, not yet trained for the target, and how it is to be trained.

    ``align`` is the loss between sides of the catalogue, ``checkpoint`` where the fits of this run are held on disk.
    """

    vocabulary: Vocabulary
    net: TwoTower
    model: EdgeModel
    task: Task
    fit: FitConfig | None
    frozen: bool = False
    reconstruct: bool = False
    align: Alignment | None = None
    checkpoint: Checkpoint | None = None


def _assemble(
    context: Context, vocabulary: Vocabulary, net: TwoTower, features: FeatureEncoder
) -> EdgeModel:
    names = tuple(context.dataset.features.name[row] for row in vocabulary.dataset_rows)
    none = empty_matrix(len(vocabulary.ids), vocabulary.candidates)
    groups = np.full((len(vocabulary.ids), 0), -1, np.int32)
    return EdgeModel(
        vocabulary.ids,
        names,
        net,
        features,
        none,
        none,
        LowRankFactors.none(*none.shape),
        LowRankFactors.none(0, vocabulary.candidates),
        numpy_copy(net.bias),
        groups,
        ScoreWeights(),
        Provenance(),
    )


def from_scratch(context: Context) -> TrainingSetup:
    """Start from co-occurrence vectors of the task's own training part."""
    dataset, task, config = context.dataset, context.task, context.config
    vocabulary = build_vocabulary(dataset, task, config.min_buyers)
    features = (
        context.source.features
        if context.source is not None
        else fit_features(dataset, config.text)
    )
    inputs = context.inputs(features, vocabulary.dataset_rows)
    full_shape = ModelConfig(
        size=config.size,
        width=config.width,
        feed_forward=2 * config.width,
        text=inputs.text.shape[1],
        numeric=inputs.numeric.shape[1],
        vocabulary=tuple(len(values) for values in features.vocabulary.values()),
    )
    shape, inputs = _ablate(full_shape, inputs, config)
    torch.manual_seed(config.seed)
    net = TwoTower(shape, len(vocabulary.ids), vocabulary.candidates, inputs)
    start = cooccurrence_vectors(
        task.train,
        vocabulary.rows,
        len(vocabulary.ids),
        config.width,
        _example_unit(task) == "basket",
    )
    with torch.no_grad():
        net.history_id.weight.copy_(torch.from_numpy(start))
        net.candidate_id.weight.copy_(torch.from_numpy(start[: vocabulary.candidates]))
        net.bias.copy_(torch.from_numpy(log_popularity(task)))
    run = FitConfig(epochs=config.epochs, rate=config.rate, seed=config.seed, logq=config.logq)
    return TrainingSetup(
        vocabulary,
        net,
        _assemble(context, vocabulary, net, features),
        task,
        run,
        checkpoint=context.checkpoint,
    )


def _ablate(
    shape: ModelConfig, inputs: TowerInputs, config: TrainConfig
) -> tuple[ModelConfig, TowerInputs]:
    """Return what ``config.without`` leaves of a network's shape and of its inputs."""
    if "content" in config.without or not shape.content:
        shape = replace(shape, text=0, numeric=0, vocabulary=())
        inputs = TowerInputs(inputs.text[:, :0], inputs.numeric[:, :0], inputs.categories[:, :0])
    if "ids" in config.without:
        shape = replace(shape, ids=False)
    if not shape.ids and not shape.content:
        raise ModelError("without ids and without content an item is nothing: leave one of them in")
    return shape, inputs


def from_source(context: Context, bias: NDArray[np.float32] | None) -> TrainingSetup:
    """Start from the source model: its encoder and content tower, and the vectors of the items it knows.

    What is aligned are the candidates and the items known only as history, where there are any.
    """
    dataset, task, source = context.dataset, context.task, context.source
    if source is None:
        raise ModelError(
            "this mode transfers from a source model: give one with --from (see `tlrec-edge pretrain`)"
        )
    vocabulary = build_vocabulary(dataset, task, context.config.min_buyers)
    inputs = context.inputs(source.features, vocabulary.dataset_rows)
    shape, inputs = _ablate(source.net.config, inputs, context.config)
    net = TwoTower(shape, len(vocabulary.ids), vocabulary.candidates, inputs)
    shared = {
        k: v
        for k, v in source.net.state_dict().items()
        if k not in ("history_id.weight", "candidate_id.weight", "bias")
    }
    net.load_state_dict(shared, strict=False)
    place = {name: row for row, name in enumerate(source.ids)}
    row = np.array([place.get(name, -1) for name in vocabulary.ids], np.int64)
    with torch.no_grad():
        for table, source_table, limit in (
            (net.history_id.weight, source.net.history_id.weight, len(source.ids)),
            (net.candidate_id.weight, source.net.candidate_id.weight, source.candidates),
        ):
            known = (row[: len(table)] >= 0) & (row[: len(table)] < limit)
            table.zero_()
            table[torch.from_numpy(known)] = source_table[
                torch.from_numpy(row[: len(table)][known])
            ]
        known = (row[: vocabulary.candidates] >= 0) & (
            row[: vocabulary.candidates] < source.candidates
        )
        net.bias.zero_()
        net.bias[torch.from_numpy(known)] = source.net.bias[
            torch.from_numpy(row[: vocabulary.candidates][known])
        ]
        if bias is not None:
            net.bias.copy_(torch.from_numpy(bias))
    model = _assemble(context, vocabulary, net, source.features)
    model = model.with_provenance(align=source.provenance.align)
    align = _align(context, source, vocabulary, net)
    return TrainingSetup(
        vocabulary, net, model, task, None, align=align, checkpoint=context.checkpoint
    )


def _align(
    context: Context, source: EdgeModel, vocabulary: Vocabulary, net: TwoTower
) -> Alignment | None:
    """Return the loss between the candidates and the items known only as history, if it is asked for."""
    if context.config.align == "none":
        return None
    sides = np.split(vocabulary.dataset_rows, [vocabulary.candidates])
    inputs = [context.inputs(source.features, rows) for rows in sides]
    return make_alignment(net, inputs, context.config, context.config.epochs)


def _example_unit(task: Task) -> str:
    """Cut between baskets where most users come more than once, else anywhere."""
    target_log = task.train.select(task.in_target(task.train))
    same = (target_log.user[1:] == target_log.user[:-1]) & (
        target_log.time[1:] == target_log.time[:-1]
    )
    baskets = np.bincount(target_log.user[np.append(True, ~same)[: len(target_log)]])
    return "basket" if len(baskets) and np.median(baskets[baskets > 0]) >= 2 else "item"


def training_examples(setup: TrainingSetup, config: TrainConfig) -> Examples:
    """Return the training examples of a setup."""
    task, net = setup.task, setup.net
    known = task.train.select(setup.vocabulary.rows[task.train.item] >= 0)
    if config.event_weights:
        known = replace(
            known, weight=known.weight * np.array(config.event_factors(), np.float32)[known.event]
        )
    in_target = task.in_target(known)
    return Examples(
        known,
        setup.vocabulary.rows,
        task.column,
        in_target,
        net.config.history,
        AGE_BUCKETS,
        _example_unit(task),
        target_dropout=config.forget if (~in_target).any() else 0.0,
        first_only=task.mask_seen,
        reconstruct=setup.reconstruct,
        augment=config.augment,
        by_weight=bool(config.event_weights),
    )


def fit_net(
    setup: TrainingSetup,
    examples: Examples,
    run: FitConfig,
    validate: Callable[[], float] | None,
    progress: Progress | None,
) -> tuple[TrainingSetup, FitResult]:
    """Train a setup's network in place; return the setup with what its alignment reached in the model's provenance."""
    net = setup.net
    if setup.frozen:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in ("candidate_id.weight", "bias"))
    align = None if setup.frozen else setup.align  # frozen towers cannot be moved
    checkpoint = setup.checkpoint.next_fit() if setup.checkpoint else None
    result = fit(
        net,
        examples,
        run,
        validate,
        setup.task.mask_seen and not setup.reconstruct,
        progress,
        align,
        checkpoint,
    )
    net.requires_grad_(False)
    if result.report:
        setup = replace(setup, model=setup.model.with_provenance(align=dict(result.report)))
    return setup, result
