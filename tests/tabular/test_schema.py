"""Roles of columns: common names, declared names, and misspelt ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.paths import ROOT
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, ITEM_NAMES
from tlrec_edge.tabular.roles import find_roles, require_role
from tlrec_edge.tabular.schema import (
    FEATURE_KINDS,
    AlignRule,
    Schema,
    load_schema,
    parse_schema,
)


@pytest.mark.parametrize(
    ("columns", "roles"),
    [
        ("用户ID 商品ID 点击次数 购买次数", "user item clicks purchases"),
        ("用户ID 分类 点击次数 购买次数", "user category clicks purchases"),
        ("user_id sku event_type timestamp", "user item event timestamp"),
        ("Customer-ID Product_ID Qty Unit_Price", "user item quantity price"),
        ("household_id product_id transaction_timestamp quantity", "user item timestamp quantity"),
        (
            "CustomerID StockCode InvoiceDate Country Description",
            "user item timestamp domain title",
        ),
    ],
)
def test_common_names_of_interactions(columns: str, roles: str) -> None:
    names = columns.split()
    assert find_roles(names, {}, INTERACTION_NAMES, "log") == dict(
        zip(roles.split(), names, strict=True)
    )


def test_common_names_of_items() -> None:
    found = find_roles(["商品ID", "价格", "销量", "评分", "分类", "标题"], {}, ITEM_NAMES, "items")
    assert found == {"item": "商品ID", "category": "分类", "name": "标题"}


def test_declared_names_win_and_an_empty_one_switches_a_role_off() -> None:
    declared = {"user": "buyer", "timestamp": ""}
    assert find_roles(["buyer", "user", "item", "time"], declared, INTERACTION_NAMES, "log") == {
        "user": "buyer",
        "item": "item",
    }


def test_a_missing_column_lists_what_was_found_and_the_nearest() -> None:
    with pytest.raises(
        DataError,
        match=r"log.csv: no column 'usr_id'.*found user_ids, item; did you mean 'user_ids'",
    ):
        find_roles(["user_ids", "item"], {"user": "usr_id"}, INTERACTION_NAMES, "log.csv")
    with pytest.raises(
        DataError,
        match=r"no user column; found userr, item; is 'userr' the user\?; "
        r'name it in a file for --schema: \[interactions\] user = "column"',
    ):
        require_role({}, "user", ["userr", "item"], "log.csv", "interactions")
    with pytest.raises(DataError, match="no item column; found kd, aktion; rename the column to"):
        require_role({}, "item", ["kd", "aktion"], "rows.csv", section=None)


def test_a_schema_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(
        """
[interactions]
user = "who"
[items]
name = "label"
text = ["label", "about"]
numeric = ["weight"]
[domains]
"United Kingdom" = "uk"
"*" = "non_uk"
[events]
kauf = "purchase"
[clean]
duplicates = "first-pair"
positive_price = true
cancelled = { column = "InvoiceNo", prefix = "C" }
drop_domains = ["FUEL"]
"""
    )
    schema = load_schema(path)
    assert schema == Schema(
        interactions={"user": "who"},
        items={"name": "label"},
        features={"label": "text", "about": "text", "weight": "numeric"},
        domains={"United Kingdom": "uk", "*": "non_uk"},
        events={"kauf": "purchase"},
        duplicates="first-pair",
        positive_price=True,
        cancelled=("InvoiceNo", "C"),
        drop_domains=("FUEL",),
    )
    assert [schema.domain_of(name) for name in ("United Kingdom", "France")] == ["uk", "non_uk"]
    assert [schema.event_of(name) for name in ("kauf", "Add_To_Cart", "浏览", "?")] == [
        "purchase",
        "cart",
        "view",
        None,
    ]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"interaction": {}}, "did you mean 'interactions'"),
        ({"interactions": {"usr": "a"}}, "unknown key 'usr' .* did you mean 'user'"),
        ({"clean": {"duplicate": "drop"}}, "did you mean 'duplicates'"),
        ({"clean": {"duplicates": "first"}}, "'first', expected one of drop, keep, first-pair"),
        ({"clean": {"positive_price": "yes"}}, "expected true or false"),
        ({"clean": {"cancelled": "C"}}, "cancelled is 'C'"),
        ({"events": {"kauf": "bought"}}, "'bought', expected one of view"),
        ({"items": {"text": "title"}}, "expected a list of names"),
        ({"items": {"size": "x"}}, "known: item, .*, name, text, categorical, numeric, ignore"),
        ({"items": {"textt": ["x"]}}, "did you mean 'text'"),
        ({"interactions": {"user": 3}}, "'user' is 3, expected text"),
        ({"domains": "uk"}, r"must be a table: write \[domains\]"),
    ],
)
def test_an_invalid_schema_is_explained(raw: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_schema(raw)


def test_the_schema_of_the_guide_is_one_file(tmp_path: Path) -> None:
    guide = (ROOT / "docs/data.md").read_text("utf-8")
    blocks = [part.split("```")[0] for part in guide.split("```toml")[1:]]
    (tmp_path / "schema.toml").write_text("".join(blocks), "utf-8")
    (tmp_path / "map.csv").write_text("from,to\nuk1,fr1\n")
    schema = load_schema(tmp_path / "schema.toml")
    assert (schema.scale, schema.by_domain, schema.item_map) == (
        {"price": {"uk": 1.17}},
        True,
        {"uk1": "fr1"},
    )
    assert schema.align == {"category": AlignRule("name", {"Lait": "Milk"})}


@pytest.mark.parametrize("content", [b"user = ", b"\xff\xfe"])
def test_an_unreadable_schema_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schema.toml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read schema .*schema.toml"):
        load_schema(path)


def test_a_missing_schema_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    with pytest.raises(DataError) as caught:
        load_schema(path)
    assert str(caught.value) == f"cannot read schema {path}: No such file or directory"


def test_the_guide_lists_the_keys_of_items() -> None:
    guide = (ROOT / "docs/data.md").read_text("utf-8")
    for key in (*ITEM_NAMES, *FEATURE_KINDS):
        assert re.search(rf"^{key} = ", guide, re.MULTILINE), key


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[items]\nunit price = 1\n", "line 2"),
        ("[domains]\nÖsterreich = 'at'\n", "line 2"),
        ("[interactions]\nuser = who\n", "line 2"),
    ],
)
def test_a_fault_of_toml_shows_its_line_and_asks_for_quotes(
    tmp_path: Path, text: str, shown: str
) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        load_schema(path)
    message = str(caught.value)
    assert shown in message
    assert repr(text.splitlines()[1]) in message
    assert "names with blanks, dots" in message
    assert "UTF-8" not in message
