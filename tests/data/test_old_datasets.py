"""Datasets of version 0.1.0 (commit 7a5a385) still open, and preparing them again gives the same.

The folder was written once, inside tests/data/dataset_0_1_0, by

    tlrec-edge prepare --interactions interactions.csv --items items.csv --schema schema.toml \
        --split given --candidates test_rows.csv --out dataset
"""

from __future__ import annotations

import numpy as np

from helpers.paths import ROOT
from tlrec_edge.data.dataset import TRAIN, VALID
from tlrec_edge.data.prepare import SplitPlan, prepare_files
from tlrec_edge.data.store import dataset_hash, load_dataset, split_hash
from tlrec_edge.tabular.schema import load_schema

FOLDER = ROOT / "tests/data/dataset_0_1_0"
HASH = "cd8a401ffc571355dac137b865a195ebfd5d1d2d7f72fdfe323e250446acb3cb"
SPLIT_HASH = "673e4ef4fc78df82c3f7d141b52b19ebfb4075199666010adde5102150a99581"


def test_a_dataset_of_0_1_0_opens() -> None:
    dataset = load_dataset(FOLDER / "dataset")
    assert (dataset_hash(dataset), split_hash(dataset)) == (HASH, SPLIT_HASH)
    assert (len(dataset.users), len(dataset.items)) == (12, 20)
    assert dataset.domains == ("north", "south")
    assert np.bincount(dataset.split.role).tolist() == [68, 16]
    assert {TRAIN, VALID} == set(dataset.split.role.tolist())
    assert dataset.features.aliases == {"category": {"tool": "Tools"}}
    assert dataset.cleaning["event not recognised (kept as other)"] == 36
    rows = dataset.split.rows
    assert rows is not None
    assert [dataset.items[row] for row in rows.item] == ["item-3", "item-4"]


def test_the_same_tables_still_give_the_same_dataset() -> None:
    prepared = prepare_files(
        [FOLDER / "interactions.csv"],
        [FOLDER / "items.csv"],
        load_schema(FOLDER / "schema.toml"),
        SplitPlan("given", candidates=FOLDER / "test_rows.csv"),
    )
    old = load_dataset(FOLDER / "dataset")
    assert dataset_hash(prepared.dataset) == HASH
    assert dict(prepared.dataset.cleaning) == dict(old.cleaning)
    assert prepared.dataset.source == "interactions.csv, items.csv"
