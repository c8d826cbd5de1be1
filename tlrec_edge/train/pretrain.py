"""Pretrain a model on the source domains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.core.progress import Progress, Reporter, Step
from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.store import dataset_hash, split_hash
from tlrec_edge.data.task import BY_USER, Task, empty_eval_rows, query_time
from tlrec_edge.errors import DataError
from tlrec_edge.train.align import make_alignment
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import PRETRAIN_STEPS, TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit import EPOCHS, FitConfig
from tlrec_edge.train.setup import Context, TrainingSetup, fit_net, from_scratch, training_examples
from tlrec_edge.types import Bools, Ints

_MIN_EPOCHS, _MAX_EPOCHS = 2, 40
"""Bounds of the epochs that PRETRAIN_STEPS amounts to."""


def pretrain(
    dataset: Dataset,
    domains: tuple[str, ...],
    config: TrainConfig | None = None,
    progress: Reporter | None = None,
    checkpoint: Checkpoint | None = None,
) -> EdgeModel:
    """Train a model on the source domains, for ``adapt`` to start from.

    It is trained on their interactions before the test period. If the split holds out each user's
    last rows, interactions of a user after a held-out row in another domain are left out too.

    Args:
        dataset: A prepared dataset, with its split.
        domains: The source domains. The target must not be among them.
        config: Hyperparameters; None: the defaults. ``adapt`` takes them over from the source.
        progress: Follows the epochs; a function receives a line of text before each.
        checkpoint: Saves each epoch, so that an interrupted call can continue (see
            ``checkpoint.resumable``); None: nothing is saved.

    Returns:
        The source model, whose candidates are the items of the source.

    Raises:
        DataError: A domain does not exist or has no interaction before the test period, or
            alignment is configured and there are no other items to align with.
        ModelError: Alignment is configured and the dataset has no item features.
        TrainingError: The loss is not finite, or no user has two interactions.
    """
    config = config or TrainConfig()
    target = dataset.domain_codes(domains)
    source_log = dataset.interactions.select(_trainable(dataset, target))
    if not len(source_log):
        raise DataError(
            f"domain {', '.join(domains)} has no interaction from before its users are tested"
        )
    task = Task(
        domains=domains,
        target=target,
        train=source_log,
        history=source_log,
        rows=empty_eval_rows(),
        candidates=np.unique(source_log.item),
        mask_seen=dataset.split.mask_seen,
        n_users=len(dataset.users),
        n_items=len(dataset.items),
    )
    follow = Progress.of(progress)
    context = Context(
        dataset,
        _drop_rare(task, config.min_buyers),
        source=None,
        config=config,
        progress=follow,
        checkpoint=checkpoint,
    )
    follow.plan(Step("pretraining", counted(len(domains), "domain"), {EPOCHS: 1.0}))
    follow.begin("pretraining")
    model = pretrain_task(context, _other_items(dataset, target, source_log.item))
    made = model.provenance
    reached = (f"alignment {name} {value:.4f}" for name, value in made.align.items())
    loss = f"loss {made.losses[-1]:.4f}"
    follow.end(", ".join((counted(made.epochs or 0, "epoch"), loss, *reached)))
    return model


def _trainable(dataset: Dataset, source: Ints) -> Bools:
    """Mark the interactions of the source domains from before any test row of the user."""
    log = dataset.interactions
    in_source, tested = np.isin(log.domain, source), dataset.split.role == TEST
    known: Bools = in_source & ~tested
    if dataset.split.kind in BY_USER:
        known &= log.time <= query_time(dataset, tested & ~in_source)[log.user]
    return known


def _drop_rare(task: Task, min_buyers: int) -> Task:
    """Keep candidates with ``min_buyers`` distinct buyers; never fewer than the best-selling."""
    pairs = np.unique(task.train.user.astype(np.int64) * task.n_items + task.train.item)
    buyers = np.bincount(pairs % task.n_items, minlength=task.n_items)
    candidates = np.flatnonzero(buyers >= min(min_buyers, buyers.max())).astype(np.int32)
    return replace(task, candidates=candidates)


def _other_items(dataset: Dataset, source: Ints, sold: Ints) -> Ints:
    """Return the items of other domains that the source does not sell.

    Only their features are used, which are known before anybody buys them.
    """
    is_other = ~np.isin(dataset.item_domain, source)
    is_other[sold] = False
    return np.flatnonzero(is_other).astype(np.int32)


def pretrain_task(context: Context, other_items: Ints) -> EdgeModel:
    """Train on a task whose target is the source.

    ``other_items`` are dataset rows; if alignment is configured, all other items of the task are
    aligned with them.
    """
    dataset, task, config = context.dataset, context.task, context.config
    # Without times no cut separates past from future, so examples reconstruct the whole user.
    setup = replace(from_scratch(context), reconstruct=not task.train.time.any())
    examples = training_examples(setup, config)
    epochs = config.pretrain_epochs or default_epochs(examples.size())
    run = FitConfig(epochs=epochs, rate=config.rate, seed=config.seed, logq=config.logq)
    if config.align != "none":
        setup = _with_alignment(setup, context, other_items, epochs)
    setup, result = fit_net(setup, context, examples, run)
    return setup.model.with_provenance(
        kind="source",
        domains=task.domains,
        split_sha256=split_hash(dataset),
        dataset_sha256=dataset_hash(dataset),
        train=config,
        epochs=result.epochs,
        losses=tuple(result.losses),
    )


def default_epochs(examples: int) -> int:
    """Return the epochs that make about PRETRAIN_STEPS steps."""
    steps = max(1, min(examples, FitConfig.examples) // FitConfig.batch)
    return int(np.clip(PRETRAIN_STEPS // steps, _MIN_EPOCHS, _MAX_EPOCHS))


def _with_alignment(
    setup: TrainingSetup, context: Context, other_items: Ints, epochs: int
) -> TrainingSetup:
    """Align the source's items with the other items, or its domains with each other without any.

    Raises DataError if there is only one group of items.
    """
    task, item_domain = context.task, context.dataset.item_domain
    source_items = np.setdiff1d(task.candidates, other_items)
    if len(other_items):
        groups = [source_items, other_items]
    else:
        groups = [source_items[item_domain[source_items] == code] for code in task.target]
    inputs = [context.inputs(setup.model.features, rows) for rows in groups]
    align = make_alignment(setup.net, inputs, context.config, epochs)
    if align is None:
        raise DataError(
            f"--align {context.config.align}: {', '.join(task.domains)} has nothing to be aligned "
            "with: give items of other domains to prepare, or use --align none"
        )
    return replace(setup, align=align)
