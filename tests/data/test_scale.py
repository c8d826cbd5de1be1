"""Numbers in different units by domain: factors, ranks within a domain, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tlrec_edge.cli.prepare import prepare
from tlrec_edge.core.features import FeatureEncoder
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.describe import describe
from tlrec_edge.data.prepare import Prepared, prepare_tables
from tlrec_edge.data.store import dataset_hash, load_dataset, save_dataset
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.schema import Schema, load_schema, parse_schema
from tlrec_edge.train.item_features import encode_features, fit_features

LOG = pd.DataFrame({"user": ["u", "v", "u"], "item": ["a", "b", "b"]})
GOODS = pd.DataFrame(
    {
        "item": ["a", "b", "c", "d"],
        "domain": ["fr", "uk", "uk", "fr"],
        "price": ["10", "20", "", "x"],
        "stock": [1, 2, 3, 4],
    }
)


def two_markets(factor: float = 1.0, n_items: int = 60, **schema: Any) -> Dataset:
    """Return two markets whose prices differ by ``factor``, and a third one with 5 items."""
    prices = [("fr", n, float(n)) for n in range(n_items)] + [
        ("jp", n, n * factor) for n in range(n_items)
    ]
    rows = [
        (f"{d}{n}", d, "" if n % 10 == 3 else repr(p))
        for d, n, p in (*prices, *(("small", n, n) for n in range(5)))
    ]
    goods = pd.DataFrame(rows, columns=["item", "domain", "price"])
    return prepare_tables(
        [pd.DataFrame({"user": ["u", "v"], "item": ["fr1", "jp1"]})], [goods], Schema(**schema)
    ).dataset


def prices(dataset: Dataset, encoder: FeatureEncoder | None = None) -> dict[str, np.ndarray]:
    """Return rank and missing flag (items, 2) of each domain's items, by their number."""
    encoder = encoder or fit_features(dataset)
    found = encode_features(dataset, encoder, np.arange(len(dataset.items), dtype=np.int32)).numeric
    return {
        name: np.array(
            [
                found[dataset.item_row[f"{name}{n}"]]
                for n in range((dataset.item_domain == code).sum())
            ]
        )
        for code, name in enumerate(dataset.domains)
    }


def test_factors_bring_item_prices_to_one_unit_and_are_counted() -> None:
    prepared = prepare_tables(
        [LOG], [GOODS], Schema(features={"price": "numeric"}, scale={"price": {"uk": 1.5}})
    )
    found = prepared.dataset
    assert found.features.numeric["price"][:2].tolist() == [10.0, 30.0]
    assert np.isnan(found.features.numeric["price"][2:]).all()
    assert found.features.numeric["stock"].tolist() == [1, 2, 3, 4]
    assert found.cleaning["price brought to the common unit (items)"] == 1
    assert found.cleaning["feature values made missing"] == 1


def test_if_the_log_has_the_price_the_factor_is_that_of_the_row() -> None:
    log = pd.DataFrame(
        {
            "user": list("uvw"),
            "item": list("aab"),
            "price": ["10", "100", "50"],
            "market": ["fr", "jp", "jp"],
        }
    )
    found = prepare_tables([log], schema=Schema(scale={"price": {"jp": 0.1}})).dataset
    assert found.features.numeric["price"].tolist() == [10.0, 5.0]
    assert found.cleaning["price brought to the common unit (rows)"] == 2


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (
            {"price": {"ukk": 2.0}},
            r"\[scale.price\]: no domain 'ukk'; did you mean 'uk'\?; known: fr, uk",
        ),
        (
            {"prise": {"uk": 2.0}},
            r"\[scale.prise\]: no such numeric column; did you mean 'price'\?; known: price, stock",
        ),
        ({"price": {"uk": 0.0}}, r"\[scale.price\] uk is 0.0, expected a number above 0"),
        ({"price": {"uk": -1}}, "uk is -1, expected"),
        ({"price": {"uk": float("inf")}}, "uk is inf, expected"),
        ({"price": {"uk": True}}, "uk is True, expected"),
        ({"price": {"uk": "2"}}, "uk is '2', expected"),
    ],
)
def test_an_invalid_factor_is_explained(scale: dict[str, dict[str, Any]], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        prepare_tables([LOG], [GOODS], Schema(features={"price": "numeric"}, scale=scale))
    assert "\n" not in str(caught.value)


def test_a_factor_needs_items_with_a_domain() -> None:
    log = LOG.assign(domain=["fr", "uk", "uk"])
    with pytest.raises(
        DataError, match="no item has a domain; add a domain column to the item table"
    ):
        prepare_tables([log], [GOODS.drop(columns="domain")], Schema(scale={"stock": {"uk": 2.0}}))


def test_ranks_within_a_domain_need_items_with_a_domain() -> None:
    log = LOG.assign(domain=["fr", "uk", "uk"], price="1")
    with pytest.raises(
        DataError, match=r"\[scale\] by_domain: no item has a domain; add a domain column"
    ):
        prepare_tables([log], schema=Schema(by_domain=True))


def test_scale_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    path.write_text("[scale]\nby_domain = true\n[scale.price]\nfr = 1\nuk = 1.17\n")
    schema = load_schema(path)
    assert (schema.by_domain, schema.scale) == (True, {"price": {"fr": 1, "uk": 1.17}})
    with pytest.raises(DataError, match=r"\[scale\] price is 2, expected a table: \[scale.price\]"):
        parse_schema({"scale": {"price": 2}})
    with pytest.raises(DataError, match="'by_domain' is 1, expected true or false"):
        parse_schema({"scale": {"by_domain": 1}})


@settings(max_examples=15)
@given(st.floats(1e-3, 1e5))
def test_within_its_domain_the_unit_of_a_number_does_not_matter(factor: float) -> None:
    found = prices(two_markets(factor, by_domain=True))
    np.testing.assert_allclose(found["fr"], found["jp"], atol=1e-5)
    assert found["jp"][:, 1].nonzero()[0].tolist() == [
        n for n in range(60) if n % 10 == 3
    ]  # missing stays missing


def test_without_by_domain_numbers_are_ranked_among_all() -> None:
    data = two_markets(100.0)
    found = prices(data)
    assert found["fr"][50, 0] < found["jp"][10, 0]
    assert fit_features(data).by_domain == {}


def test_a_domain_of_few_items_is_ranked_among_all() -> None:
    on, off = two_markets(100.0, by_domain=True), two_markets(100.0)
    assert set(fit_features(on).by_domain) == {"fr", "jp"}
    np.testing.assert_array_equal(prices(on)["small"], prices(off)["small"])


def test_a_bundle_of_one_target_ranks_by_its_knots() -> None:
    data = two_markets(100.0, by_domain=True)
    encoder = fit_features(data)
    jp = encoder.within(["jp"])
    assert (jp.by_domain, jp.quantiles["price"]) == ({}, encoder.by_domain["jp"]["price"])
    price = data.features.numeric["price"][data.item_row["jp40"]]
    assert jp.encode({"price": [price]}, 1).numeric[0, 0] == prices(data)["jp"][40, 0]
    both = encoder.within(["fr", "jp"])
    assert (
        both.encode({"price": [price]}, 1, domains=["jp"]).numeric[0, 0]
        == prices(data)["jp"][40, 0]
    )
    assert encoder.within(["small"]).quantiles == encoder.quantiles


def test_an_encoder_survives_json() -> None:
    encoder = replace(
        fit_features(two_markets(9.0, by_domain=True)), aliases={"category": {"thé": "tea"}}
    )
    restored = FeatureEncoder.from_schema(
        json.loads(json.dumps(encoder.schema())), encoder.text_table
    )
    assert restored.schema() == encoder.schema()
    assert set(fit_features(two_markets()).schema()) == {"text_columns", "vocabulary", "quantiles"}


def test_by_domain_is_stored_and_hashed(tmp_path: Path) -> None:
    on, off = two_markets(by_domain=True), two_markets()
    assert dataset_hash(on) != dataset_hash(off)
    save_dataset(on, tmp_path / "on")
    assert load_dataset(tmp_path / "on").features.by_domain


def test_a_dataset_without_aliases_and_by_domain_is_read(tmp_path: Path) -> None:
    save_dataset(two_markets(), tmp_path / "old")
    marker = tmp_path / "old" / "dataset.json"
    head = json.loads(marker.read_text("utf-8"))
    del head["aliases"], head["by_domain"]
    marker.write_text(json.dumps(head), "utf-8")
    old = load_dataset(tmp_path / "old")
    assert (old.features.by_domain, dict(old.features.aliases)) == (False, {})


def statistics(prepared: Prepared) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in describe(prepared)["numbers"]]


def test_numbers_are_shown_by_domain() -> None:
    found = statistics(
        prepare_tables(
            [LOG], [GOODS], Schema(features={"price": "numeric"}, scale={"price": {"uk": 1.5}})
        )
    )
    assert found[:2] == [
        ("price", "fr", 1, 1, 10.0, 10.0, 1.0),
        ("price", "uk", 1, 1, 30.0, 30.0, 1.5),
    ]
    empty = GOODS.assign(price="")
    assert statistics(prepare_tables([LOG], [empty], Schema(features={"price": "numeric"})))[0] == (
        "price",
        "fr",
        0,
        2,
        None,
        None,
        1.0,
    )


@pytest.mark.parametrize(
    ("schema", "warns"),
    [("", True), ("[scale]\nby_domain = true", False), ("[scale.price]\njp = 0.01", False)],
)
def test_a_warning_if_medians_differ_widely(tmp_path: Path, schema: str, warns: bool) -> None:
    rows = [
        f"{d}{n},{d},{(n + 10) * (100 if d == 'jp' else 1)}"
        for d in ("fr", "jp")
        for n in range(20)
    ]
    (tmp_path / "goods.csv").write_text("\n".join(["item,domain,price", *rows]))
    (tmp_path / "log.csv").write_text("user,item\nu,fr1\nv,jp2\n")
    (tmp_path / "schema.toml").write_text(schema)
    names = (
        "--interactions",
        "log.csv",
        "--items",
        "goods.csv",
        "--schema",
        "schema.toml",
        "--out",
        "ds",
    )
    done = CliRunner().invoke(
        prepare, [str(tmp_path / name) if name[0] != "-" else name for name in names]
    )
    assert done.exit_code == 0, done.output
    assert "Numbers by domain" in done.output
    assert (
        "price: the median of jp is 100 times that of fr; another currency or unit?" in done.output
    ) == warns
