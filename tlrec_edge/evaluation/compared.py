"""Open a model folder or a bundle folder as a ranker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.bundle.format import MANIFEST, REMEDY
from tlrec_edge.bundle.manifest_values import integer
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Tasks
from tlrec_edge.errors import BundleError
from tlrec_edge.evaluation.evaluate import model_ranker
from tlrec_edge.evaluation.leaks import check_model
from tlrec_edge.linear.ranking import Ranking, rank_full
from tlrec_edge.linear.tuned import Ranker
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.plan import visible_task
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.train.served import bundle_scorer
from tlrec_edge.types import Bools


@dataclass(frozen=True)
class ComparedModel:
    """A model under comparison.

    Attributes:
        ranker: from a dataset, which may have other test rows than the one that the model was
            checked against, to what ranks them; it raises LeakError if the model was trained on
            them.
        provenance: what the model was trained on.
        knows: returns which items, by id, the model can score.
    """

    ranker: Callable[[Dataset], Ranker]
    provenance: Provenance
    knows: Callable[[Sequence[str]], Bools]


def open_compared_model(path: Path, dataset: Dataset) -> ComparedModel:
    """Open a folder as a bundle if it has a manifest, else as a model.

    Raises ModelError or BundleError if it can't be read or was made under another split.
    """
    if (path / MANIFEST).is_file():
        return _open_bundle(path, dataset)
    return compared_model(EdgeModel.load(path, before_refit=False), dataset)


def compared_model(model: EdgeModel, dataset: Dataset) -> ComparedModel:
    """Return a model to compare. Raises ModelError if it was made under another split."""
    model.check_split(dataset)
    known = set(model.ids[: model.candidates])
    return ComparedModel(
        partial(model_ranker, model),
        model.provenance,
        lambda ids: np.array([name in known for name in ids], bool),
    )


def _open_bundle(path: Path, dataset: Dataset) -> ComparedModel:
    recommender = Recommender.open(path)
    made = _provenance_of(path, recommender.manifest)
    if made.split_sha256 != split_hash(dataset):
        raise BundleError(
            f"{path} was made under another split than this dataset's: "
            "export it again from a model of this dataset"
        )

    def rank(data: Dataset, tasks: Tasks) -> Ranking:
        if made.domains != tasks.final.domains:
            raise BundleError(
                f"{path} was made for {', '.join(made.domains) or 'no domain'}, "
                f"not for {', '.join(tasks.final.domains)}: pass its own --domain"
            )
        check_model(data, tasks, made)
        task = visible_task(tasks.final, made.mode)
        return rank_full(bundle_scorer(recommender, data, task), task)

    def knows(ids: Sequence[str]) -> Bools:
        rows = recommender.rows(list(ids)).values
        return (rows >= 0) & (rows < len(recommender))  # items known from histories come after

    return ComparedModel(lambda data: partial(rank, data), made, knows)


def _provenance_of(path: Path, manifest: Mapping[str, Any]) -> Provenance:
    """Read the provenance from a manifest; bundles that other programs wrote may lack entries.

    Raises BundleError, which names the entry, if one has another type or value than it may.
    """
    try:
        entries = _object("provenance", manifest.get("provenance"))
        source = entries.get("source_domains")
        return Provenance(
            kind="target",
            domains=_names("domains", entries.get("domains") or []),
            mode=_text("mode", entries.get("mode")),
            fold=None if entries.get("fold") is None else integer("fold", entries["fold"]),
            train=_train_config(_object("train", entries.get("train"))),
            source=None if source is None else _names("source_domains", source),
            split_sha256=_text("split_sha256", entries.get("split_sha256")),
            dataset_sha256=_text("dataset_sha256", entries.get("dataset_sha256")),
        )
    except ValueError as error:
        raise BundleError(f"{path / MANIFEST}: provenance: {error}; {REMEDY}") from error


def _train_config(entries: Mapping[str, Any]) -> TrainConfig:
    """Read the hyperparameters; those of other versions are ignored."""
    known = {field.name for field in fields(TrainConfig)}
    try:
        return TrainConfig(**{name: entries[name] for name in known & entries.keys()})
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"train: {error}") from error


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value or {}, Mapping):
        raise ValueError(f"{name} = {value!r:.40}, expected an object")
    return value or {}


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(domain, str) for domain in value):
        raise ValueError(f"{name} = {value!r:.40}, expected a list of domains")
    return tuple(value)


def _text(name: str, value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError(f"{name} = {value!r:.40}, expected a text")
    return value
