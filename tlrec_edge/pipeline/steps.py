"""The steps of the pipeline, with defaults that fit a dataset of two domains or one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.choices import AUTO
from tlrec_edge.core.progress import Progress, Reporter, Step
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.errors import ArgumentError
from tlrec_edge.evaluation.cards import measure_cards
from tlrec_edge.evaluation.compared import compared_model, open_compared_model
from tlrec_edge.evaluation.evaluate_model import ModelEvaluation, evaluate_model
from tlrec_edge.export import ExportConfig, Parity, export_bundle
from tlrec_edge.export.cost import measure_costs
from tlrec_edge.pipeline.inputs import (
    Domains,
    StrPath,
    check_config,
    choose_domains,
    folder_of,
    open_dataset,
    open_model,
    optional_path,
)
from tlrec_edge.quantize import CompressConfig, Compression
from tlrec_edge.quantize import compress as search
from tlrec_edge.train.adapt import adapt as adapt_by_mode
from tlrec_edge.train.adapt import config_of
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.checkpoint import resumable
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.pretrain import pretrain as pretrain_source

GATES = "graphs and gates"
"""The step of ``export`` that writes the bundle."""


def pretrain(
    dataset: Dataset | StrPath,
    domains: Domains | None = None,
    config: TrainConfig | None = None,
    *,
    out: StrPath | None = None,
    progress: Reporter | None = None,
    checkpoint: StrPath | None = None,
) -> EdgeModel:
    """Train a source model.

    Args:
        dataset: The dataset, or its folder.
        domains: The source: a domain or several. None: the only domain of the dataset.
        config: Hyperparameters. None: the defaults.
        out: A folder to save the model in. None saves nothing.
        progress: A function that receives lines of text, or a ``Progress`` that gets every status.
        checkpoint: A folder to save every epoch in; the same call then resumes. It is removed when
            the model is complete, and saved if there is ``out``.

    Returns:
        The source model, for ``adapt``.

    Raises:
        DataError: A domain is unknown, or none is chosen and there are several.
        TrainingError: Training diverged, or there is nothing to learn from.
        ModelError: The checkpoint is of another run.
    """
    dataset = open_dataset(dataset)
    config = check_config(config, TrainConfig) or TrainConfig()
    source = choose_domains(dataset, domains)
    with resumable(
        optional_path(checkpoint), dataset, config, command="pretrain", domains=source
    ) as saved:
        model = pretrain_source(dataset, source, config, progress, saved)
        if out is not None:
            model.save(Path(out))
    return model


def adapt(
    dataset: Dataset | StrPath,
    domain: Domains | None = None,
    *,
    source: EdgeModel | StrPath | None = None,
    mode: str = AUTO,
    config: TrainConfig | None = None,
    fold: int | None = None,
    out: StrPath | None = None,
    progress: Reporter | None = None,
    checkpoint: StrPath | None = None,
    minutes: float | None = None,
) -> EdgeModel:
    """Adapt a source model to a target, or train on the target alone.

    Args:
        dataset: The dataset, or its folder.
        domain: The target: a domain, or several that are ranked as one catalogue. None: the only
            domain of the dataset.
        source: A model that ``pretrain`` returned, or its folder. None: only the target is used.
        mode: A transfer mode, or "auto" to choose one on the validation rows.
        config: Hyperparameters. None: those of the source, or the defaults without one.
        fold: The fold of users to hold out under the split "new-users". None: no users are.
        out: A folder to save the model in. None saves nothing.
        progress: A function that receives lines of text, or a ``Progress`` that gets every status.
        checkpoint: A folder to save every epoch in; the same call then resumes. It is removed when
            the model is complete, and saved if there is ``out``.
        minutes: A time budget. Training ends earlier and options are left out, depending on the
            speed of the machine, to return the best found by then; ``model.provenance.left_out``
            names them. None: no budget. It can't be combined with a checkpoint.

    Returns:
        The model. ``model.provenance.auto`` has the comparisons that chose the mode.

    Raises:
        DataError: A domain or the fold is unknown, or the mode needs a source.
        ArgumentError: ``minutes`` is not above 0, or there is a checkpoint too.
        TrainingError: Training diverged, or there is nothing to learn from.
        ModelError: The source does not fit the dataset, or the checkpoint is of another run.
    """
    dataset = open_dataset(dataset)
    if source is not None:
        source = open_model(source, "source")
    config = check_config(config, TrainConfig) or config_of(source)
    target = choose_domains(dataset, domain)
    if minutes is not None and (checkpoint is not None or not minutes > 0):
        raise ArgumentError("minutes must be above 0, and can't be combined with a checkpoint")
    follow = Progress.of(progress, minutes)
    facts = {
        "domains": target,
        "mode": mode,
        "fold": fold,
        "source": source.provenance.to_json() if source else None,
    }
    with resumable(optional_path(checkpoint), dataset, config, command="adapt", **facts) as saved:
        if mode == AUTO:
            model, _ = adapt_auto(dataset, target, source, config, fold, follow, checkpoint=saved)
        else:
            model = adapt_by_mode(
                dataset, target, mode, source, config, fold, follow, checkpoint=saved
            )
        if out is not None:
            model.save(Path(out))
    return model


def evaluate(
    model: EdgeModel | StrPath,
    dataset: Dataset | StrPath,
    domain: Domains | None = None,
    *,
    fold: int | None = None,
    target_only: bool = True,
    ease_penalties: Sequence[float] = (),
    progress: Reporter | None = None,
) -> ModelEvaluation:
    """Compare a model or a bundle with baselines on the test rows.

    Args:
        model: A model, or the folder of a model or a bundle.
        dataset: The dataset that the model was adapted to, or its folder.
        domain: The target. None: that of the model.
        fold: The fold of users under the split "new-users". None: that of the model.
        target_only: Whether to train the same model on the target alone, for comparison.
        ease_penalties: Penalties to evaluate EASE with, besides the tuned one.
        progress: A function that receives lines of text, or a ``Progress`` that gets every status.

    Returns:
        The ranks of the test rows under each model, and what to know about them.

    Raises:
        LeakError: The model was trained on test rows, or on rows that are later than them.
        ModelError: The model does not fit the dataset.
        BundleError: The bundle cannot be read, or does not fit the dataset.
    """
    dataset = open_dataset(dataset)
    if isinstance(model, EdgeModel):
        compared = compared_model(model, dataset)
    else:
        path = folder_of(model, "model", "a model, or the folder of a model or a bundle")
        compared = open_compared_model(path, dataset)
    trained = compared.provenance.domains if domain is None else ()
    target = trained or choose_domains(dataset, domain)
    return evaluate_model(
        compared,
        dataset,
        target,
        fold=fold,
        target_only=target_only,
        ease_penalties=ease_penalties,
        progress=progress,
    )


def compress(
    model: EdgeModel | StrPath,
    dataset: Dataset | StrPath,
    config: CompressConfig | None = None,
    *,
    progress: Reporter | None = None,
    checkpoint: StrPath | None = None,
) -> Compression:
    """Find the smallest model that keeps the quality budget, and measure it as a bundle.

    Args:
        model: A model that ``adapt`` returned, or its folder.
        dataset: The dataset that the model was adapted to, or its folder.
        config: Budget, limits and effort of the search. None: the defaults.
        progress: A function that receives lines of text, or a ``Progress`` that gets every status.
        checkpoint: A folder to save pruned models in; the same call then resumes. None saves
            nothing.

    Returns:
        The smaller model, every model that was tried, and the figures of the test rows.

    Raises:
        BudgetError: No model keeps the budget and meets the limits.
        ModelError: The model is compressed already, or the checkpoint is of another search.
    """
    dataset = open_dataset(dataset)
    return search(
        open_model(model, before_refit=True),
        dataset,
        check_config(config, CompressConfig),
        progress,
        measure_costs=partial(measure_costs, dataset=dataset),
        checkpoint=optional_path(checkpoint),
        about_machine=asdict(fingerprint()),
    )


def export(
    model: EdgeModel | StrPath,
    dataset: Dataset | StrPath,
    path: StrPath,
    config: ExportConfig | None = None,
    *,
    cards: bool = True,
    progress: Reporter | None = None,
) -> Parity:
    """Write a model as a bundle, if the bundle passes its gates.

    Args:
        model: A model that ``adapt`` or ``compress`` returned, or its folder.
        dataset: The dataset that the model was adapted to, or its folder.
        path: Folder of the bundle: a new one, an empty one or an older bundle.
        config: Stored users, tolerance and gates. None: the defaults.
        cards: Whether to measure quality and transfer on the test rows, for the manifest.
        progress: A function that receives lines of text, or a ``Progress`` that gets every status.

    Returns:
        How much the bundle's scores differ from the torch model's.

    Raises:
        ExportError: A gate fails. Nothing is written then.
        BundleError: ``path`` is not writable, or holds anything but a bundle.
        LeakError: The model was trained on rows that its test holds out.
    """
    dataset = open_dataset(dataset)
    model = open_model(model)
    follow = Progress.of(progress)
    follow.plan(Step(GATES))
    measured = measure_cards(model, dataset, follow) if cards else {}
    follow.begin(GATES)
    parity = export_bundle(model, dataset, Path(path), check_config(config, ExportConfig), measured)
    follow.end()
    return parity
