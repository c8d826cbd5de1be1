"""A network before it is trained on its task: its initial weights, and how it is to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from tlrec_edge.core.features import FeatureEncoder, TowerInputs
from tlrec_edge.core.progress import Progress
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.data.vocabulary import Vocabulary, build_vocabulary
from tlrec_edge.errors import ModelError
from tlrec_edge.linear.low_rank import LowRankFactors
from tlrec_edge.linear.matrices import empty_matrix
from tlrec_edge.linear.priors import log_popularity
from tlrec_edge.train.align import Alignment, make_alignment
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.examples import Examples
from tlrec_edge.train.fit import FitConfig, FitResult, fit
from tlrec_edge.train.item_features import cooccurrence_vectors, encode_features, fit_features
from tlrec_edge.train.model import AGE_BUCKETS, ModelConfig, TwoTower, numpy_copy
from tlrec_edge.train.parts import ScoreWeights
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.types import Floats, Ints, Longs

_PER_ITEM = ("history_id.weight", "candidate_id.weight", "bias")
"""The parameters that have a row for each item; all others fit any vocabulary."""


@dataclass(frozen=True)
class Context:
    """What every transfer mode works with.

    Attributes:
        dataset: The dataset.
        task: The task to train for.
        source: The pretrained model; None: the mode needs none.
        config: The hyperparameters.
        progress: Follows the steps, and keeps the time budget.
        checkpoint: Saves the fits; None saves nothing.
    """

    dataset: Dataset
    task: Task
    source: EdgeModel | None
    config: TrainConfig
    progress: Progress = field(default_factory=Progress)
    checkpoint: Checkpoint | None = None

    def inputs(self, features: FeatureEncoder, rows: Ints) -> TowerInputs:
        """Encode rows of the dataset for the item tower."""
        return encode_features(self.dataset, features, rows, self.config.text)


@dataclass(frozen=True)
class TrainingSetup:
    """A network over a vocabulary, and how it is to be trained.

    Attributes:
        vocabulary: The items of the network.
        net: The network; training changes it in place.
        model: The model around ``net``, without linear parts.
        task: The task to train for; scratch forgets the other domains.
        fit: The hyperparameters of the training run; None: the network is not trained.
        mask_seen: Whether items in a user's history are excluded from the training negatives.
        frozen: Whether only the ids and biases of the candidates are trained.
        reconstruct: Whether examples predict all items of a user, those in the history included.
        align: The loss that makes two groups of items similar; None: no such loss.
    """

    vocabulary: Vocabulary
    net: TwoTower
    model: EdgeModel
    task: Task
    fit: FitConfig | None
    mask_seen: bool
    frozen: bool = False
    reconstruct: bool = False
    align: Alignment | None = None


def from_scratch(context: Context) -> TrainingSetup:
    """Start from co-occurrence vectors of the task's own training part."""
    dataset, task, config = context.dataset, context.task, context.config
    vocabulary = build_vocabulary(dataset, task, config.min_buyers)
    if context.source is not None:
        features = context.source.features
    else:
        features = fit_features(dataset, config.text)
    inputs = context.inputs(features, vocabulary.dataset_rows)
    shape = ModelConfig(
        size=config.size,
        width=config.width,
        feed_forward=2 * config.width,
        text=inputs.text.shape[1],
        numeric=inputs.numeric.shape[1],
        vocabulary=tuple(len(values) for values in features.vocabulary.values()),
    )
    shape, inputs = _ablate(shape, inputs, config)
    torch.manual_seed(config.seed)
    net = TwoTower(shape, len(vocabulary.ids), vocabulary.candidates, inputs)
    _start_from_cooccurrence(net, task, vocabulary)
    return TrainingSetup(
        vocabulary=vocabulary,
        net=net,
        model=_wrap(net, dataset, vocabulary, features),
        task=task,
        fit=FitConfig(epochs=config.epochs, rate=config.rate, seed=config.seed, logq=config.logq),
        mask_seen=task.mask_seen,
    )


def _start_from_cooccurrence(net: TwoTower, task: Task, vocabulary: Vocabulary) -> None:
    """Set the id vectors to co-occurrence vectors, and the biases to log popularity."""
    vectors = cooccurrence_vectors(
        task.train,
        vocabulary.rows,
        len(vocabulary.ids),
        net.config.width,
        by_basket=_example_unit(task) == "basket",
    )
    with torch.no_grad():
        net.history_id.weight.copy_(torch.from_numpy(vectors))
        net.candidate_id.weight.copy_(torch.from_numpy(vectors[: vocabulary.candidates]))
        net.bias.copy_(torch.from_numpy(log_popularity(task)))


def from_source(context: Context, bias: Floats | None) -> TrainingSetup:
    """Start from the source model: its encoder, its content tower, and the vectors of shared items.

    ``bias`` (C,) replaces the source's biases. If ``config.align`` is set, the loss aligns the
    candidates with the items that are known only in histories, which are the source's.

    Raises ModelError without a source model, or if ``config.without`` leaves nothing of an item.
    """
    dataset, source, config = context.dataset, context.source, context.config
    if source is None:
        raise ModelError(
            "this mode transfers from a source model: "
            "give one with --from (see `tlrec-edge pretrain`)"
        )
    vocabulary = build_vocabulary(dataset, context.task, config.min_buyers)
    inputs = context.inputs(source.features, vocabulary.dataset_rows)
    shape, inputs = _ablate(source.net.config, inputs, config)
    net = TwoTower(shape, len(vocabulary.ids), vocabulary.candidates, inputs)
    _start_from_source(net, source, vocabulary)
    if bias is not None:
        with torch.no_grad():
            net.bias.copy_(torch.from_numpy(bias))
    model = _wrap(net, dataset, vocabulary, source.features)
    return TrainingSetup(
        vocabulary=vocabulary,
        net=net,
        model=model.with_provenance(align=source.provenance.align),
        task=context.task,
        fit=None,
        mask_seen=context.task.mask_seen,
        align=_align(context, source, vocabulary, net),
    )


def _start_from_source(net: TwoTower, source: EdgeModel, vocabulary: Vocabulary) -> None:
    """Copy the source's weights. Items that the source does not know start as their content."""
    state = source.net.state_dict()
    shared = {name: value for name, value in state.items() if name not in _PER_ITEM}
    net.load_state_dict(shared, strict=False)
    source_row = {item_id: row for row, item_id in enumerate(source.ids)}
    rows = np.array([source_row.get(item_id, -1) for item_id in vocabulary.ids], np.int64)
    with torch.no_grad():
        _copy_rows(net.history_id.weight, source.net.history_id.weight, rows)
        _copy_rows(net.candidate_id.weight, source.net.candidate_id.weight, rows)
        _copy_rows(net.bias, source.net.bias, rows)


def _copy_rows(table: Tensor, source: Tensor, rows: Longs) -> None:
    """Fill ``table`` with the given rows of ``source``; rows that it does not have become 0."""
    rows = rows[: len(table)]
    known = (rows >= 0) & (rows < len(source))
    table.zero_()
    table[torch.from_numpy(known)] = source[torch.from_numpy(rows[known])]


def _ablate(
    shape: ModelConfig, inputs: TowerInputs, config: TrainConfig
) -> tuple[ModelConfig, TowerInputs]:
    """Remove content or ids from the network's shape and inputs if ``config.without`` names them.

    Raises ModelError if neither content nor ids are left.
    """
    if "content" in config.without or not shape.content:
        shape = replace(shape, text=0, numeric=0, vocabulary=())
        inputs = TowerInputs(inputs.text[:, :0], inputs.numeric[:, :0], inputs.categories[:, :0])
    if "ids" in config.without:
        shape = replace(shape, ids=False)
    if not shape.ids and not shape.content:
        raise ModelError("without ids and without content an item is nothing: leave one of them in")
    return shape, inputs


def _wrap(
    net: TwoTower, dataset: Dataset, vocabulary: Vocabulary, features: FeatureEncoder
) -> EdgeModel:
    """Return a model of the network alone, whose linear parts are empty."""
    items, candidates = len(vocabulary.ids), vocabulary.candidates
    return EdgeModel(
        ids=vocabulary.ids,
        names=tuple(dataset.features.name[row] for row in vocabulary.dataset_rows),
        net=net,
        features=features,
        wide=empty_matrix(items, candidates),
        target_wide=empty_matrix(items, candidates),
        residual=LowRankFactors.none(items, candidates),
        interest=LowRankFactors.none(0, candidates),
        bias=numpy_copy(net.bias),
        groups=np.full((items, 0), -1, np.int32),
        score_weights=ScoreWeights(),
        provenance=Provenance(),
    )


def _align(
    context: Context, source: EdgeModel, vocabulary: Vocabulary, net: TwoTower
) -> Alignment | None:
    """Return the loss between the candidates and the other items; None if none is configured."""
    if context.config.align == "none":
        return None
    groups = np.split(vocabulary.dataset_rows, [vocabulary.candidates])
    inputs = [context.inputs(source.features, rows) for rows in groups]
    return make_alignment(net, inputs, context.config, context.config.epochs)


def _example_unit(task: Task) -> str:
    """Return "basket" if most users come more than once, else "item" (see ``Examples``)."""
    log = task.train.select(task.in_target(task.train))
    same_basket = (log.user[1:] == log.user[:-1]) & (log.time[1:] == log.time[:-1])
    begins_basket = np.append(True, ~same_basket)[: len(log)]
    baskets = np.bincount(log.user[begins_basket])
    return "basket" if len(baskets) and np.median(baskets[baskets > 0]) >= 2 else "item"


def training_examples(setup: TrainingSetup, config: TrainConfig) -> Examples:
    """Return the training examples of a setup."""
    task = setup.task
    known = task.train.select(setup.vocabulary.rows[task.train.item] >= 0)
    if config.event_weights:
        factors = np.array(config.event_factors(), np.float32)
        known = replace(known, weight=known.weight * factors[known.event])
    in_target = task.in_target(known)
    has_source = (~in_target).any()
    return Examples(
        log=known,
        rows=setup.vocabulary.rows,
        column=task.column,
        in_target=in_target,
        length=setup.net.config.history,
        age_buckets=AGE_BUCKETS,
        unit=_example_unit(task),
        target_dropout=config.forget if has_source else 0.0,
        first_only=setup.mask_seen,
        reconstruct=setup.reconstruct,
        augment=config.augment,
        by_weight=bool(config.event_weights),
    )


def fit_net(
    setup: TrainingSetup,
    context: Context,
    examples: Examples,
    run: FitConfig,
    validate: Callable[[], float] | None = None,
) -> tuple[TrainingSetup, FitResult]:
    """Train the network of a setup in place.

    Returns the setup and the result of the run. The setup's model has the trained bias, and in its
    provenance what the alignment reached.
    """
    net = setup.net
    if setup.frozen:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in ("candidate_id.weight", "bias"))
    result = fit(
        net,
        examples,
        run,
        validate,
        # An example that predicts its own history must not exclude it.
        mask_seen=setup.mask_seen and not setup.reconstruct,
        progress=context.progress,
        # Alignment moves the content tower, which a frozen setup keeps.
        extra=None if setup.frozen else setup.align,
        checkpoint=context.checkpoint.next_fit() if context.checkpoint else None,
    )
    net.requires_grad_(False)
    model = replace(setup.model, bias=numpy_copy(net.bias))
    if result.report:
        model = model.with_provenance(align=dict(result.report))
    return replace(setup, model=model), result
