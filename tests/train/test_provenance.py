"""The provenance of a model, as written now and by version 0.1.0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from helpers import synthetic
from tlrec_edge.train import EdgeModel, TrainConfig, adapt_auto
from tlrec_edge.train.parts import ScoreWeights
from tlrec_edge.train.provenance import Provenance

TRAIN = json.loads(
    json.dumps(asdict(TrainConfig(augment=("crop",), event_weights=(("view", 0.5),))))
)
SOURCE = {
    "kind": "source",
    "domains": ["big", "other"],
    "split_sha256": "12",
    "dataset_sha256": "34",
    "train": TRAIN,
    "epochs": 2,
    "losses": [3.5, 2.5],
    "align": {"loss": 0.25},
}
TARGET = {
    "kind": "target",
    "mode": "finetune",
    "domains": ["small"],
    "fold": None,
    "train": TRAIN,
    "split_sha256": "12",
    "dataset_sha256": "34",
    "source": ["big"],
    "choices": {
        "epochs": 4,
        "penalty": 100.0,
        "own_penalty": None,
        "half_life": 30.0,
        "mix": ScoreWeights(wide=2.0).to_json(),
        "validation_ndcg@10": 0.5,
    },
    "auto": [
        {
            "mode": "popularity",
            "ndcg": 0.1,
            "over": "popularity",
            "lift": 0.0,
            "se": 0.0,
            "chosen": False,
        }
    ],
    "choice": "pooled",
    "compression": {
        "budget": "ndcg@10>=99%",
        "for": "this",
        "points": [{"step": "original", "us": None}],
    },
}
"""What 0.1.0 wrote under ``about``."""


@pytest.mark.parametrize("written", [SOURCE, TARGET], ids=["source", "target"])
def test_provenance_of_0_1_0_is_written_as_it_was_read(written: dict[str, Any]) -> None:
    found = json.loads(json.dumps(Provenance.from_json(written).to_json()))
    assert found == {"fold": None, "source": None} | written


def test_a_folder_of_0_1_0_opens(tmp_path: Path) -> None:
    synthetic.model().save(tmp_path / "m")
    file = tmp_path / "m" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"about": TARGET}), "utf-8")
    made = EdgeModel.load(tmp_path / "m").provenance
    assert (made.domains, made.source, made.mode, made.way) == (
        ("small",),
        ("big",),
        "finetune",
        "pooled",
    )
    assert made.choices is not None
    assert made.choices.score_weights == ScoreWeights(wide=2.0)
    assert made.train == TrainConfig(augment=("crop",), event_weights=(("view", 0.5),))
    assert made.auto[0].mode == "popularity"


@pytest.mark.parametrize("kind", ["source", "target", "auto"])
def test_a_stored_model_keeps_its_provenance(tmp_path: Path, kind: str) -> None:
    quick = replace(synthetic.CONFIG, epochs=1, augment=("crop",))
    make: dict[str, Callable[[], EdgeModel]] = {
        "source": synthetic.source,
        "target": synthetic.model,
        "auto": lambda: adapt_auto(synthetic.dataset(), ("small",), None, quick)[0],
    }
    model = make[kind]().with_provenance(compression={"budget": "ndcg@10>=99%"})
    model.save(tmp_path / "m")
    assert EdgeModel.load(tmp_path / "m").provenance == model.provenance


def test_keys_of_other_versions_are_ignored() -> None:
    assert Provenance.from_json(SOURCE | {"weather": "fine"}) == Provenance.from_json(SOURCE)
