"""Train a model on the source domains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.store import dataset_hash, split_hash
from tlrec_edge.data.task import BY_USER, Task, empty_eval_rows, query_time
from tlrec_edge.errors import DataError
from tlrec_edge.train.align import make_alignment
from tlrec_edge.train.checkpoint import Checkpoint
from tlrec_edge.train.config import PRETRAIN_STEPS, TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.fit import FitConfig, Progress
from tlrec_edge.train.setup import Context, TrainingSetup, fit_net, from_scratch, training_examples
from tlrec_edge.types import Ints


def pretrain(
    dataset: Dataset,
    domains: tuple[str, ...],
    config: TrainConfig | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> EdgeModel:
    """Train a model on the source domains: all their interactions before the test period, and where a split holds out
    a user's last rows, none of a user's after a question in another domain.

    ``checkpoint`` holds every epoch on disk (see ``checkpoint.resumable``).
    """
    config = config or TrainConfig()
    target = dataset.domain_codes(domains)
    log = dataset.interactions
    in_source, tested = np.isin(log.domain, target), dataset.split.role == TEST
    known = in_source & ~tested
    if dataset.split.kind in BY_USER:
        known &= log.time <= query_time(dataset, tested & ~in_source)[log.user]
    source_log = log.select(known)
    if not len(source_log):
        raise DataError(
            f"domain {', '.join(domains)} has no interaction from before its users are tested"
        )
    task = Task(
        domains,
        target,
        source_log,
        source_log,
        empty_eval_rows(),
        np.unique(source_log.item),
        dataset.split.mask_seen,
        len(dataset.users),
        len(dataset.items),
    )
    task = _drop_rare(task, config.min_buyers)
    return pretrain_task(
        Context(dataset, task, None, config, progress, checkpoint=checkpoint),
        _items_sold_elsewhere(dataset, target, source_log.item),
    )


def _drop_rare(task: Task, min_buyers: int) -> Task:
    pairs = np.unique(task.train.user.astype(np.int64) * task.n_items + task.train.item)
    buyers = np.bincount(pairs % task.n_items, minlength=task.n_items)
    kept = np.flatnonzero(buyers >= min(min_buyers, buyers.max())).astype(np.int32)
    return replace(task, candidates=kept)


def _items_sold_elsewhere(dataset: Dataset, source: Ints, sold: Ints) -> Ints:
    """Return the items that the source does not sell: of them, features may be known, and no behaviour is looked at."""
    elsewhere = ~np.isin(dataset.item_domain, source)
    elsewhere[sold] = False
    return np.flatnonzero(elsewhere).astype(np.int32)


def pretrain_task(context: Context, other_items: Ints) -> EdgeModel:
    """Train on a task whose target is the source; ``other_items`` are the items that all others are aligned with."""
    dataset, task, config = context.dataset, context.task, context.config
    setup = replace(from_scratch(context), reconstruct=not task.train.time.any())
    examples = training_examples(setup, config)
    steps = max(1, min(examples.size(), FitConfig.examples) // FitConfig.batch)
    epochs = config.pretrain_epochs or int(np.clip(PRETRAIN_STEPS // steps, 2, 40))
    run = FitConfig(epochs=epochs, rate=config.rate, seed=config.seed, logq=config.logq)
    if config.align != "none":
        setup = _aligned(setup, context, other_items, epochs)
    setup, result = fit_net(setup, examples, run, None, context.progress)
    return setup.model.with_provenance(
        kind="source",
        domains=task.domains,
        split_sha256=split_hash(dataset),
        dataset_sha256=dataset_hash(dataset),
        train=config,
        epochs=result.epochs,
        losses=tuple(result.losses),
    )


def _aligned(
    setup: TrainingSetup, context: Context, other_items: Ints, epochs: int
) -> TrainingSetup:
    """Align the candidates with the other items, or where there are none the source domains with each other."""
    dataset, task = context.dataset, context.task
    own_items = np.setdiff1d(task.candidates, other_items)
    sides = (
        [own_items, other_items]
        if len(other_items)
        else [own_items[dataset.item_domain[own_items] == code] for code in task.target]
    )
    inputs = [context.inputs(setup.model.features, rows) for rows in sides]
    align = make_alignment(setup.net, inputs, context.config, epochs)
    if align is None:
        raise DataError(
            f"--align {context.config.align}: {', '.join(task.domains)} has nothing to be aligned with: "
            "give items of other domains to prepare, or use --align none"
        )
    return replace(setup, align=align)
