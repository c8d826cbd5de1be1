"""Open a model folder or a bundle folder as a ranker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Tasks
from tlrec_edge.errors import BundleError
from tlrec_edge.evaluation.evaluate import Ranker, model_ranker, visible_task
from tlrec_edge.evaluation.leaks import check_model
from tlrec_edge.linear.ranking import Ranking, rank_full
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
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
    if (path / "manifest.json").is_file():
        return _open_bundle(path, dataset)
    return compared_model(EdgeModel.load(path), dataset)


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
    made = _provenance_of(recommender.manifest)
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


def _provenance_of(manifest: Mapping[str, Any]) -> Provenance:
    """Read the provenance from a manifest; bundles that other programs wrote may lack it."""
    entries = manifest.get("provenance") or {}
    train_options = {field.name for field in fields(TrainConfig)}
    train = {k: v for k, v in (entries.get("train") or {}).items() if k in train_options}
    source = entries.get("source_domains")
    return Provenance(
        kind="target",
        domains=tuple(entries.get("domains") or ()),
        mode=entries.get("mode"),
        fold=entries.get("fold"),
        train=TrainConfig(**train),
        source=None if source is None else tuple(source),
        split_sha256=entries.get("split_sha256"),
        dataset_sha256=entries.get("dataset_sha256"),
    )
