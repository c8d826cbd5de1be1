"""Open a model or a bundle folder as something that can be ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tlrec_edge import Recommender
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Tasks
from tlrec_edge.errors import BundleError
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.evaluate import Entry, model_entry
from tlrec_edge.train.leaks import check_model
from tlrec_edge.train.ranking import Ranking, rank_whole
from tlrec_edge.train.served import bundle_scorer


@dataclass(frozen=True)
class Contender:
    """``entry`` ranks the test rows; ``config`` trains a comparable target-only model; ``fold`` is the one held out.

    ``about`` is what the folder says of where it comes from.
    """

    entry: Entry
    mode: str
    config: TrainConfig
    fold: int | None
    source: tuple[str, ...]
    about: Mapping[str, Any]


def open_contender(path: Path, dataset: Dataset) -> Contender:
    """Open a folder as a bundle (it has a manifest) or a model. Raises ModelError or BundleError."""
    if (path / "manifest.json").is_file():
        recommender = Recommender.open(path)
        about = dict(recommender.manifest.get("provenance") or {})
        about["source"] = about.get("source_domains")
        if about.get("split_sha256") != split_hash(dataset):
            raise BundleError(
                f"{path} was made under another split than this dataset's: export it again from a model of it"
            )

        def entry(tasks: Tasks) -> Ranking:
            if tuple(about.get("domains") or ()) != tasks.final.domains:
                raise BundleError(
                    f"{path} was made for {', '.join(about.get('domains') or ('no domain',))}, "
                    f"not for {', '.join(tasks.final.domains)}: give its own --domain"
                )
            check_model(dataset, tasks, about)
            task = tasks.final.target_only() if about.get("mode") == "scratch" else tasks.final
            return rank_whole(bundle_scorer(recommender, dataset, task), task)

        return _contender(entry, about)
    model = EdgeModel.load(path)
    model.check_split(dataset)
    return _contender(model_entry(model, dataset), dict(model.about))


def _contender(entry: Entry, about: dict[str, Any]) -> Contender:
    known = {field.name for field in fields(TrainConfig)}
    config = TrainConfig(**{k: v for k, v in (about.get("train") or {}).items() if k in known})
    return Contender(entry, str(about.get("mode")), config, about.get("fold"), tuple(about.get("source") or ()), about)
