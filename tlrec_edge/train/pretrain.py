"""Train a model on the source domains."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Task, no_rows
from tlrec_edge.errors import DataError
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.config import PRETRAIN_STEPS, TrainConfig
from tlrec_edge.train.draft import Context, examples_of, fit_net, fresh
from tlrec_edge.train.fit import FitConfig, Progress


def pretrain(
    dataset: Dataset, domains: tuple[str, ...], config: TrainConfig | None = None, say: Progress | None = None
) -> EdgeModel:
    """Train a model on the source domains: all their interactions before the test period."""
    config = config or TrainConfig()
    target = dataset.domain_codes(domains)
    log = dataset.interactions
    mine = log.where(np.isin(log.domain, target) & (dataset.split.role != TEST))
    if not len(mine):
        raise DataError(f"domain {', '.join(domains)} has no interaction before the test period")
    task = Task(
        domains, target, mine, mine, no_rows(), np.unique(mine.item),
        dataset.split.mask_seen, len(dataset.users), len(dataset.items),
    )  # fmt: skip
    return pretrain_task(dataset, _drop_rare(task, config.min_buyers), config, say)


def _drop_rare(task: Task, min_buyers: int) -> Task:
    pairs = np.unique(task.train.user.astype(np.int64) * task.n_items + task.train.item)
    buyers = np.bincount(pairs % task.n_items, minlength=task.n_items)
    kept = np.flatnonzero(buyers >= min(min_buyers, buyers.max())).astype(np.int32)
    return replace(task, candidates=kept)


def pretrain_task(dataset: Dataset, task: Task, config: TrainConfig, say: Progress | None) -> EdgeModel:
    """Train on a task whose target is the source."""
    draft = replace(fresh(Context(dataset, task, None, config, say)), whole=not task.train.time.any())
    examples = examples_of(draft, config)
    steps = max(1, min(examples.size(), FitConfig.examples) // FitConfig.batch)
    epochs = config.pretrain_epochs or int(np.clip(PRETRAIN_STEPS // steps, 4, 40))
    run = FitConfig(epochs=epochs, rate=config.rate, seed=config.seed)
    result = fit_net(draft, examples, run, None, say)
    about = {
        "kind": "source", "domains": list(task.domains), "split_sha256": split_hash(dataset),
        "train": asdict(config), "epochs": result.epochs,
        "losses": list(result.losses),
    }  # fmt: skip
    return replace(draft.model, about=about)
