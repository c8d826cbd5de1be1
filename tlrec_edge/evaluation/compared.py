"""Open a model or a bundle folder as something that can be ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Tasks
from tlrec_edge.errors import BundleError
from tlrec_edge.evaluation.evaluate import Ranker, model_ranker
from tlrec_edge.evaluation.leaks import check_model
from tlrec_edge.linear.ranking import Ranking, rank_full
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.train.served import bundle_scorer


@dataclass(frozen=True)
class ComparedModel:
    """A folder under comparison: ``ranker`` ranks the test rows."""

    ranker: Ranker
    provenance: Provenance


def open_compared_model(path: Path, dataset: Dataset) -> ComparedModel:
    """Open a folder as a bundle (it has a manifest) or a model. Raises ModelError or BundleError."""
    if (path / "manifest.json").is_file():
        recommender = Recommender.open(path)
        made = _provenance_of(recommender.manifest)
        if made.split_sha256 != split_hash(dataset):
            raise BundleError(
                f"{path} was made under another split than this dataset's: export it again from a model of it"
            )

        def ranker(tasks: Tasks) -> Ranking:
            if made.domains != tasks.final.domains:
                raise BundleError(
                    f"{path} was made for {', '.join(made.domains or ('no domain',))}, "
                    f"not for {', '.join(tasks.final.domains)}: give its own --domain"
                )
            check_model(dataset, tasks, made)
            task = tasks.final.target_only() if made.mode == "scratch" else tasks.final
            return rank_full(bundle_scorer(recommender, dataset, task), task)

        return ComparedModel(ranker, made)
    model = EdgeModel.load(path)
    model.check_split(dataset)
    return ComparedModel(model_ranker(model, dataset), model.provenance)


def _provenance_of(manifest: Mapping[str, Any]) -> Provenance:
    """Read what a comparison needs from a manifest; bundles of others may say nothing of where they come from."""
    found = manifest.get("provenance") or {}
    known = {field.name for field in fields(TrainConfig)}
    source = found.get("source_domains")
    return Provenance(
        kind="target",
        domains=tuple(found.get("domains") or ()),
        mode=found.get("mode"),
        fold=found.get("fold"),
        train=TrainConfig(**{k: v for k, v in (found.get("train") or {}).items() if k in known}),
        source=None if source is None else tuple(source),
        split_sha256=found.get("split_sha256"),
        dataset_sha256=found.get("dataset_sha256"),
    )
