"""Every way of transferring is one function of the same shape: from what is known to a network ready to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tlrec_edge.linear.priors import log_popularity, sales_prior
from tlrec_edge.train.fit import FitConfig
from tlrec_edge.train.pretrain import pretrain_task
from tlrec_edge.train.setup import Context, TrainingSetup, from_scratch, from_source


def scratch(context: Context) -> TrainingSetup:
    """Learn from the target alone: the fair baseline, same parts, same search."""
    return from_scratch(replace(context, task=context.task.target_only()))


def zero_shot(context: Context) -> TrainingSetup:
    """Use the source model as it is: content, and the vectors of items that the source also sells.

    Items that the source does not sell start from their sales column, where there is one.
    """
    setup = from_source(context, None)
    known = (
        set(context.source.ids[: context.source.candidates])
        if context.source is not None
        else set()
    )
    new = np.array(
        [name not in known for name in setup.vocabulary.ids[: setup.vocabulary.candidates]]
    )
    prior = sales_prior(
        context.dataset, setup.vocabulary.dataset_rows[: setup.vocabulary.candidates]
    )
    with torch.no_grad():
        setup.net.bias[torch.from_numpy(new)] = torch.from_numpy(prior[new])
    return setup


def frozen(context: Context) -> TrainingSetup:
    """Keep the source's towers as feature extractor; only the candidates' ids and biases learn."""
    setup = from_source(context, log_popularity(context.task))
    return replace(
        setup,
        fit=FitConfig(
            epochs=context.config.epochs,
            rate=context.config.rate,
            seed=context.config.seed,
            logq=context.config.logq,
        ),
        frozen=True,
    )


def finetune(context: Context) -> TrainingSetup:
    """Start at the source model and train everything, the trunk more slowly."""
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
    """Train once on source and target together, then read off the target's candidates."""
    task = context.task
    union = replace(
        task,
        target=np.unique(task.train.domain),
        candidates=np.unique(np.append(task.train.item, task.candidates)),
    )
    together = pretrain_task(replace(context, task=union, source=None), task.candidates)
    return from_source(replace(context, source=together), log_popularity(task))


MODES: dict[str, Callable[[Context], TrainingSetup]] = {
    "scratch": scratch,
    "zero-shot": zero_shot,
    "frozen": frozen,
    "finetune": finetune,
    "joint": joint,
}
