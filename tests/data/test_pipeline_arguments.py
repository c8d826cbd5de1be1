"""The steps of the pipeline take folders in place of objects, and refuse anything else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tlrec_edge import pipeline
from tlrec_edge.errors import ArgumentError

LOG = pd.DataFrame(
    {
        "user": [f"u{n % 10}" for n in range(90)],
        "item": [n * n % 13 for n in range(90)],
        "time": [f"2024-01-{1 + n % 28:02}" for n in range(90)],
        "market": ["de", "uk", "uk"] * 30,
    }
)
QUICK = pipeline.TrainConfig(epochs=1, pretrain_epochs=1)


def test_folders_are_read(tmp_path: Path) -> None:
    data, source, model = (tmp_path / name for name in ("data", "source", "model"))
    pipeline.save_dataset(pipeline.Dataset.from_frames(LOG), data)
    pipeline.pretrain(str(data), "uk", QUICK, out=str(source))
    pipeline.adapt(data, "de", source=str(source), mode="finetune", config=QUICK, out=model)
    found = pipeline.evaluate(str(model), str(data), target_only=False)
    assert "model" in found.result.rankings
    head, *rows = repr(found).splitlines()
    assert head == "NDCG@10 (SE) on de, 8 test rows of 8 users"
    assert [row.split()[0] for row in rows] == list(found.result.rankings)
    assert all(re.fullmatch(r"  [\w-]+ +\d\.\d{4} \(\d\.\d{4}\)", row) for row in rows)
    notes = found.to_json()["notes"]
    assert "8 test rows of 8 users: too few to show anything" in notes
    pipeline.export(model, data, tmp_path / "bundle", cards=False)
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_what_is_neither_an_object_nor_a_folder_is_refused() -> None:
    data = pipeline.Dataset.from_frames(LOG)
    wrong: Any = LOG
    none: Any = None
    with pytest.raises(ArgumentError, match="dataset is of type DataFrame, expected a Dataset or"):
        pipeline.pretrain(wrong)
    with pytest.raises(ArgumentError, match="source is of type DataFrame, expected a model or its"):
        pipeline.adapt(data, "de", source=wrong)
    with pytest.raises(ArgumentError, match="model is of type NoneType, expected a model"):
        pipeline.evaluate(none, data)
    with pytest.raises(ArgumentError, match="model is of type NoneType, expected a model"):
        pipeline.export(none, data, "bundle")
    with pytest.raises(ArgumentError, match=r"config is of type DataFrame, expected TrainConfig"):
        pipeline.adapt(data, "de", config=wrong)
    with pytest.raises(ArgumentError, match="domain is of type int, expected one of de, uk"):
        pipeline.adapt(data, wrong.shape[0])
    with pytest.raises(ArgumentError, match=r"unknown domain 'dee'.*did you mean 'de'"):
        pipeline.adapt(data, "dee")
