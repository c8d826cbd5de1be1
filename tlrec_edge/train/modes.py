"""The transfer modes: each is a function from what is known to a network ready to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tlrec_edge.linear.priors import log_popularity, sales_prior
from tlrec_edge.train.fit import FitConfig
from tlrec_edge.train.plan import PRETRAINING
from tlrec_edge.train.pretrain import pretrain_task
from tlrec_edge.train.setup import Context, TrainingSetup, from_scratch, from_source


def scratch(context: Context) -> TrainingSetup:
    """Train on the target alone: the fair baseline, with the same parts and the same tuning."""
    return from_scratch(replace(context, task=context.task.target_only()))


def zero_shot(context: Context) -> TrainingSetup:
    """Use the source model unchanged: content vectors, and id vectors of items that both sell.

    Items that the source does not sell get their bias from the sales column, if there is one.
    """
    setup = from_source(context, None)
    source, vocabulary = context.source, setup.vocabulary
    sold = set(source.ids[: source.candidates]) if source is not None else set()
    candidates = vocabulary.ids[: vocabulary.candidates]
    is_new = np.array([item_id not in sold for item_id in candidates])
    prior = sales_prior(context.dataset, vocabulary.dataset_rows[: vocabulary.candidates])
    with torch.no_grad():
        setup.net.bias[torch.from_numpy(is_new)] = torch.from_numpy(prior[is_new])
    return setup


def frozen(context: Context) -> TrainingSetup:
    """Keep the source's towers as a feature extractor; train the candidates' ids and biases."""
    config = context.config
    run = FitConfig(epochs=config.epochs, rate=config.rate, seed=config.seed, logq=config.logq)
    setup = from_source(context, log_popularity(context.task))
    return replace(setup, fit=run, frozen=True)


def finetune(context: Context) -> TrainingSetup:
    """Start at the source model and train everything, the shared weights more slowly."""
    config = context.config
    run = FitConfig(
        epochs=config.epochs,
        rate=config.tune_rate,
        trunk_rate=config.trunk_rate,
        seed=config.seed,
        logq=config.logq,
    )
    return replace(from_source(context, log_popularity(context.task)), fit=run)


def joint(context: Context) -> TrainingSetup:
    """Train once on source and target together, then keep the target's candidates.

    The training on all domains is the whole training: nothing is fine-tuned afterwards.
    """
    task = context.task
    all_domains = replace(
        task,
        target=np.unique(task.train.domain),
        candidates=np.unique(np.append(task.train.item, task.candidates)),
    )
    on_all = replace(context, task=all_domains, source=None)
    with context.progress.within(PRETRAINING):
        together = pretrain_task(on_all, task.candidates)
    return from_source(replace(context, source=together), log_popularity(task))


MODES: dict[str, Callable[[Context], TrainingSetup]] = {
    "scratch": scratch,
    "zero-shot": zero_shot,
    "frozen": frozen,
    "finetune": finetune,
    "joint": joint,
}
