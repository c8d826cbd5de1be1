"""Aligned names: which names of two domains are merged, by what rule, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tlrec_edge.cli.prepare import prepare
from tlrec_edge.data.align import normalize_name
from tlrec_edge.data.prepare import Prepared, SplitPlan, prepare_tables
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.schema import AlignRule, Schema, load_schema, parse_schema
from tlrec_edge.train.item_features import encode_features, fit_features

SHOP = [
    ("m1", "uk", "Milk", "Danone Activia 500 ml fresh", "11"),
    ("m2", "uk", "Milk", "Lactel bio 1 l bottle", "11"),
    ("t1", "uk", "Teas", "Twinings Earl Grey 25 bags", "12"),
    ("l1", "fr", "Lait", "Danone Activia 500 ml frais", "11"),
    ("l2", "fr", "Lait", "Lactel bio 1 l bouteille", "11"),
    ("l3", "fr", "Lait", "Lactel bio 2 l bouteille", "11"),
    ("h1", "fr", "Thé", "Twinings Earl Grey 25 sachets", "12"),
    ("x1", "fr", "Pièces", "vis acier inox", ""),
]


def shop(
    align: AlignRule | None, rows: Sequence[tuple[str, ...]] | None = None, column: str = "category"
) -> Prepared:
    goods = pd.DataFrame(rows or SHOP, columns=["item", "domain", "category", "title", "shelf_id"])
    log = pd.DataFrame({"user": ["u"] * len(goods), "item": goods["item"]})
    return prepare_tables(
        [log], [goods], Schema(features={"title": "text"}, align={column: align} if align else {})
    )


def merges(align: AlignRule, rows: Sequence[tuple[str, ...]] | None = None) -> dict[str, str]:
    return {one.name: one.into for one in shop(align, rows).merged}


def test_nothing_is_merged_by_default() -> None:
    assert shop(None).merged == ()
    assert set(shop(None).dataset.features.categorical["category"]) == {
        "Milk",
        "Teas",
        "Lait",
        "Thé",
        "Pièces",
    }


def test_pairs_are_merged_and_serving_knows_both_names() -> None:
    prepared = shop(AlignRule(pairs={"Lait": "Milk", "Thé": "Tea", "Teas": "Tea"}))
    assert [tuple(one) for one in prepared.merged] == [
        ("category", "Lait", "Milk", "pair", 3),
        ("category", "Teas", "Tea", "pair", 1),
        ("category", "Thé", "Tea", "pair", 1),
    ]
    data = prepared.dataset
    assert set(data.features.categorical["category"]) == {"Milk", "Tea", "Pièces"}
    encoder = fit_features(data)
    found = encoder.encode({"category": ["Lait", "Milk", "Thé", "Fromage"]}, 4)
    lait, milk, tea, unknown = found.categories[:, 0]
    assert (lait == milk, lait == tea, unknown) == (True, False, 0)
    np.testing.assert_array_equal(found.text[0], found.text[1])
    inputs = encode_features(data, encoder, np.array([data.item_row["l1"], data.item_row["m1"]]))
    assert inputs.categories[0, 0] == inputs.categories[1, 0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Milk", " MILK ", True),
        ("Milks", "milk", True),
        ("Men's Shoes", "MENS-SHOE", True),
        ("Thé", "THE", True),
        ("Straße", "STRASSE", True),
        ("Home & Garden", "home garden", True),
        ("手机", "手机", True),
        ("手机", "服装", False),
        ("ガス", "カス", False),
        ("3.5 mm", "35 mm", False),
        ("C++", "C", False),
        ("glass", "glas", False),
        ("gas", "ga", False),
        ("!!!", "???", False),
    ],
)
def test_names_are_compared_by_their_normal_form(one: str, other: str, same: bool) -> None:
    assert (normalize_name(one) == normalize_name(other)) == same


@given(st.text(max_size=20))
def test_a_normal_form_is_never_empty(name: str) -> None:
    assert bool(normalize_name(name)) == bool(name)


def test_by_name_the_most_frequent_form_is_used() -> None:
    rows = [
        ("a", "uk", "Teas", "", ""),
        ("b", "fr", "tea", "", ""),
        ("c", "fr", "tea", "", ""),
        ("d", "fr", "TEA", "", ""),
    ]
    assert merges(AlignRule("name"), rows) == {"Teas": "tea", "TEA": "tea"}
    assert merges(AlignRule("name", {"TEA": "TEA"}), rows) == {"Teas": "tea"}  # left alone
    assert merges(AlignRule("name", {"tea": "Tee"}), rows) == {
        "Teas": "Tee",
        "TEA": "Tee",
        "tea": "Tee",
    }


def test_names_of_one_id_are_merged() -> None:
    assert merges(AlignRule("id", id="shelf_id")) == {"Milk": "Lait", "Thé": "Teas"}
    with pytest.raises(
        DataError, match=r"no column 'shelfid' in the items; .*; did you mean 'shelf_id'"
    ):
        shop(AlignRule("id", id="shelfid"))


def test_mutually_nearest_names_are_merged() -> None:
    assert merges(AlignRule("vector", threshold=0.3)) == {"Milk": "Lait", "Thé": "Teas"}
    assert merges(AlignRule("vector", threshold=0.99)) == {}
    how = {one.name: one.how for one in shop(AlignRule("vector", threshold=0.3)).merged}
    assert all(words.startswith("vector 0.") for words in how.values())


def test_names_of_one_domain_are_not_merged_by_vector() -> None:
    same = "Acme kettle T200 1.5 l steel"
    rows = [
        ("a", "uk", "Kettles", same, ""),
        ("b", "uk", "Boilers", same, ""),
        ("c", "fr", "Bouilloires", same, ""),
    ]
    rows += [("d", "de", "Kocher", same, "")]
    found = merges(AlignRule("vector", threshold=0.2), rows)
    groups = [found.get(name, name) for name in ("Kettles", "Boilers")]
    assert groups[0] != groups[1]
    assert found


def test_without_item_domains_the_domains_of_a_name_come_from_the_log() -> None:
    log = pd.DataFrame(
        [("u", item, domain, category, title) for item, domain, category, title, _ in SHOP],
        columns=["user", "item", "country", "category", "title"],
    )
    found = prepare_tables(
        [log], schema=Schema(align={"category": AlignRule("vector", threshold=0.3)})
    )
    assert {one.name for one in found.merged} == {"Milk", "Thé"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"category": {}}, r"\[align.category\]: no names to merge: set mode"),
        (
            {"category": {"mode": "names"}},
            r"\[align.category\]: mode is 'names', expected one of pairs, name, id, vector",
        ),
        (
            {"category": {"mode": "id"}},
            r"\[align.category\]: mode = \"id\" and id = .* go together",
        ),
        ({"category": {"mode": "name", "id": "x"}}, "go together"),
        ({"category": {"mode": "vector", "threshold": 1.5}}, "threshold is 1.5, expected a cosine"),
        (
            {"category": {"mode": "vector", "threshold": "x"}},
            "'threshold' is 'x', expected a number with a decimal point",
        ),
        (
            {"category": {"pair": {}}},
            r"unknown key 'pair' in \[align.category\]; did you mean 'pairs'",
        ),
        ({"category": {"pairs": "Lait"}}, "'pairs' is 'Lait', expected a table"),
        (
            {"category": {"pairs": {"a": "b", "b": "c"}}},
            "'a' becomes 'b', which becomes 'c'; write 'c' for both",
        ),
        (
            {"category": "name"},
            r"\[align\] category is 'name', expected a table: \[align.category\]",
        ),
        ({"item_map": 3}, "item_map is 3, expected a file"),
    ],
)
def test_an_invalid_rule_is_explained(raw: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_schema({"align": raw})


def test_a_misspelt_name_or_column_is_named() -> None:
    with pytest.raises(
        DataError, match=r"\[align.category\] pairs: no category 'Lai'; did you mean 'Lait'"
    ):
        shop(AlignRule(pairs={"Lai": "Milk"}))
    with pytest.raises(
        DataError, match=r"\[align.categry\]: no such categorical column; did you mean 'category'"
    ):
        shop(AlignRule("name"), column="categry")


names = st.text("aAéEsS -'3", min_size=1, max_size=4).filter(str.strip)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(names, st.sampled_from(["uk", "fr", "de"])), min_size=1, max_size=12),
    st.sampled_from(["name", "vector", "id"]),
)
def test_merging_is_a_partition_and_idempotent(cells: list[tuple[str, str]], mode: str) -> None:
    rule = AlignRule(mode, id="shelf_id" if mode == "id" else "", threshold=0.2)
    rows = [(f"i{n}", domain, name, "x", str(len(name))) for n, (name, domain) in enumerate(cells)]
    prepared = shop(rule, rows)
    aliases = prepared.dataset.features.aliases.get("category", {})
    assert aliases == {one.name: one.into for one in prepared.merged}
    assert not set(aliases) & set(aliases.values())
    assert not set(aliases) & set(prepared.dataset.features.categorical["category"])
    for n, (name, _) in enumerate(cells):
        value = prepared.dataset.features.categorical["category"][
            prepared.dataset.item_row[f"i{n}"]
        ]
        assert value == aliases.get(name.strip(), name.strip())


def test_aliases_survive_the_folder(tmp_path: Path) -> None:
    data = shop(AlignRule("id", id="shelf_id")).dataset
    save_dataset(data, tmp_path / "ds")
    assert load_dataset(tmp_path / "ds").features.aliases == {
        "category": {"Milk": "Lait", "Thé": "Teas"}
    }


MAPPED = [
    ("uk1", "uk", "Milk", "whole milk", "1"),
    ("uk2", "uk", "Tea", "black tea", "2"),
    ("fr1", "fr", "Lait", "lait entier", "3"),
    ("fr3", "fr", "Lait", "lait cru", "4"),
]
BOUGHT = [("u", "uk1"), ("v", "uk1"), ("v", "uk2"), ("w", "fr3"), ("u", "fr3")]


def mapped(item_map: dict[str, str], plan: SplitPlan | None = None) -> Prepared:
    goods = pd.DataFrame(MAPPED, columns=["item", "domain", "category", "title", "price"])
    log = pd.DataFrame(BOUGHT, columns=["user", "item"])
    schema = Schema(features={"title": "text", "price": "numeric"}, item_map=item_map)
    return prepare_tables([log], [goods], schema, plan)


def test_a_product_with_two_ids_becomes_one_item() -> None:
    data = mapped({"uk1": "fr1"}).dataset
    assert data.items == ("fr1", "fr3", "uk2")
    assert data.features.text["title"][0] == "lait entier"  # the row of the id that stays
    assert data.domains[data.item_domain[0]] == "fr"
    log = data.interactions
    here = log.item == 0
    assert [data.domains[code] for code in log.domain[here]] == [
        "uk",
        "uk",
    ]  # a purchase stays in its domain
    assert data.cleaning["item id replaced by item_map (rows)"] == 2
    assert data.cleaning["item rows merged by item_map"] == 1
    assert 0 in make_tasks(data, ("fr",)).final.candidates  # sold in uk alone, at home in fr


def test_an_id_that_only_the_map_has_takes_the_row_of_the_other() -> None:
    data = mapped({"uk1": "new"}).dataset
    assert data.features.text["title"][data.item_row["new"]] == "whole milk"
    assert data.domains[data.item_domain[data.item_row["new"]]] == "uk"


def test_given_test_rows_may_name_either_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('user,item,negatives\nv,uk1,"fr3,uk2"\nw,fr1,fr3\n')
    data = mapped({"uk1": "fr1"}, SplitPlan("given", candidates=path)).dataset
    assert data.split.rows is not None
    assert data.split.rows.item.tolist() == [data.item_row["fr1"]] * 2
    assert data.items == ("fr1", "fr3", "uk2")


def test_a_map_without_a_known_id_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"none of the 1 ids in column from of item_map is in the data"
    ):
        mapped({"zz": "fr1"})


def write(folder: Path, schema: str, item_map: str = "") -> Result:
    pd.DataFrame(MAPPED, columns=["item", "domain", "category", "title", "price"]).to_csv(
        folder / "goods.csv", index=False
    )
    pd.DataFrame(BOUGHT, columns=["user", "item"]).to_csv(folder / "log.csv", index=False)
    (folder / "map.csv").write_text(item_map)
    (folder / "s.toml").write_text(schema, "utf-8")
    files = {
        "--interactions": "log.csv",
        "--items": "goods.csv",
        "--schema": "s.toml",
        "--out": "ds",
    }
    return CliRunner().invoke(
        prepare, [part for flag, name in files.items() for part in (flag, str(folder / name))]
    )


def test_prepare_shows_what_was_merged(tmp_path: Path) -> None:
    schema = '[align.category]\npairs = { "Lait" = "Milk" }\n[align]\nitem_map = "map.csv"\n'
    result = write(tmp_path, schema, "from,to\nuk1,fr1\n")
    assert result.exit_code == 0, result.output
    assert load_schema(tmp_path / "s.toml").item_map == {"uk1": "fr1"}
    for words in ("Names merged, 1 of 1", "Lait", "Milk", "pair", "item rows merged by item_map"):
        assert words in result.output
    names = [str(tmp_path / name) for name in ("log.csv", "goods.csv", "s.toml", "ds")]
    flags = [
        part
        for pair in zip(("--interactions", "--items", "--schema", "--out"), names, strict=True)
        for part in pair
    ]
    report = json.loads(CliRunner().invoke(prepare, [*flags, "--json"]).stdout)
    assert report["merged"] == [
        {"column": "category", "name": "Lait", "into": "Milk", "how": "pair", "items": 2}
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "map.csv: expected the columns from and to, found a, b"),
        ("from,to\nuk1,\n", "line 2: an id is missing"),
        ("from,to\nuk1,fr1\nuk1,fr3\n", "line 3: 'uk1' is mapped to 'fr1' and to 'fr3'"),
        ("from,to\nuk1,uk2\nuk2,fr1\n", "item_map: 'uk1' becomes 'uk2', which becomes 'fr1'"),
    ],
)
def test_an_invalid_map_is_explained(tmp_path: Path, content: str, words: str) -> None:
    done = write(tmp_path, '[align]\nitem_map = "map.csv"\n', content)
    assert isinstance(done.exception, DataError)
    assert words in str(done.exception)
