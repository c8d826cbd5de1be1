"""Cleaning: every dropped row is counted by its reason, and counts become interactions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlrec_edge.choices import EVENT_WEIGHTS, EVENTS
from tlrec_edge.data.prepare import prepare_tables
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.arrow import table_of
from tlrec_edge.tabular.chunk import Table
from tlrec_edge.tabular.clean import clean_interactions
from tlrec_edge.tabular.column import Column, column_of, read_ids, sort_ids
from tlrec_edge.tabular.numbers import read_numbers
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import Times, read_times


def table(header: str, *rows: str) -> Table:
    cells = [row.split(",") for row in rows]
    return table_of(pd.DataFrame(cells, columns=header.split(","), dtype="str"))


def column(values: list[Any]) -> Column:
    """Return values of any type as the column of a data frame."""
    return table_of(pd.DataFrame({"x": pd.Series(values)})).columns["x"]


def times_of(values: list[Any], time_format: str = "") -> Times:
    return read_times(column(values), time_format)[0]


def test_every_reason_has_its_count() -> None:
    log = table(
        "InvoiceNo,user,item,quantity,price,timestamp",
        "1,u,a,1,1,2024-01-01",
        "1,,a,1,1,2024-01-01",
        "1,u, ,1,1,2024-01-01",
        "C1,u,a,-1,1,2024-01-01",
        "1,u,a,0,1,2024-01-01",
        "1,u,a,x,1,2024-01-01",
        "1,u,a,1,0,2024-01-01",
        "1,u,a,1,1,soon",
        "1,u,a,1,1,1969-12-31",
        "1,u,a,1,1,2100-01-01",
        "1,u,a,1,1,2024-01-01",
        "2,u,a,1,1,2024-01-01",
    )
    clean = clean_interactions([log], Schema(positive_price=True, cancelled=("InvoiceNo", "C")))
    assert clean.counts == {
        "rows read": 12,
        "rows kept": 2,
        "no user id": 1,
        "no item id": 1,
        "cancelled": 1,
        "unreadable quantity": 1,
        "quantity <= 0": 1,
        "price <= 0": 1,
        "unparsable time": 1,
        "time out of range": 2,
        "duplicate": 1,
    }


@pytest.mark.parametrize(("duplicates", "kept"), [("drop", 3), ("keep", 4), ("first-pair", 2)])
def test_duplicates_are_a_choice(duplicates: str, kept: int) -> None:
    log = table(
        "user,item,timestamp",
        "u,a,2024-01-03",
        "u,a,2024-01-02",
        "u,a,2024-01-02",
        "u,b,2024-01-01",
    )
    clean = clean_interactions([log], Schema(duplicates=duplicates))
    assert clean.counts["rows kept"] == len(clean.time) == kept
    if duplicates == "first-pair":
        assert sorted(pd.to_datetime(clean.time, unit="s").day) == [1, 2]


def test_only_the_newest_rows_of_a_heavy_user_are_kept() -> None:
    bot = [f"bot,i{n},2024-01-{n + 1:02}" for n in range(20)]
    log = table("user,item,timestamp", *bot[::-1], "u,i1,2024-01-01", "u,i2,2024-01-02")
    clean = clean_interactions([log], Schema(max_per_user=3))
    kept = sorted(clean.item.names[code] for code in clean.item.codes)
    assert kept == ["i1", "i17", "i18", "i19", "i2"]
    assert clean.counts["beyond the newest 3 of a user"] == 17
    assert clean.counts["rows kept"] == 5
    with pytest.raises(DataError, match="max_per_user is -1"):
        Schema(max_per_user=-1)


def test_without_times_the_last_rows_of_a_heavy_user_are_kept() -> None:
    clean = clean_interactions([table("user,item", "b,x", "b,y", "b,z")], Schema(max_per_user=2))
    assert [clean.item.names[code] for code in clean.item.codes] == ["y", "z"]


def test_if_no_row_is_left_the_message_lists_the_reasons() -> None:
    with pytest.raises(
        DataError,
        match=(
            r"log.csv: none of 2 rows is usable \(no user id 1, quantity <= 0 1\); "
            r"check: user = 'user'"
        ),
    ):
        clean_interactions([table("user,item,quantity", ",a,1", "u,a,0")], Schema(), "log.csv")


def test_counts_become_weighted_interactions() -> None:
    log = table(
        "用户ID,商品ID,点击次数,购买次数", "u,a,9,1", "u,b,3,0", "u,c,0,0", "u,d,-1,", "u,e,x,1"
    )
    clean = clean_interactions([log], Schema())
    click, buy = EVENTS.index("click"), EVENTS.index("purchase")
    assert [clean.item.names[code] for code in clean.item.codes] == ["a", "a", "b"]
    assert clean.event.tolist() == [click, buy, click]
    expected = [
        EVENT_WEIGHTS[click] * np.log1p(9),
        EVENT_WEIGHTS[buy] * np.log1p(1),
        EVENT_WEIGHTS[click] * np.log1p(3),
    ]
    assert clean.weight == pytest.approx(expected)
    assert (clean.counts["no positive count"], clean.counts["unreadable count"]) == (2, 1)


def test_events_are_recognised_or_counted() -> None:
    log = table("user,item,event", "u,a,PV", "u,b,加购", "u,c,kauf", "u,d,dance", "u,e,")
    clean = clean_interactions([log], Schema(events={"kauf": "purchase"}))
    assert [EVENTS[code] for code in clean.event] == [
        "view",
        "cart",
        "purchase",
        "other",
        "purchase",
    ]
    assert clean.counts["event not recognised (kept as other)"] == 1


def test_a_category_row_is_an_item_in_a_separate_domain() -> None:
    log = table("用户ID,分类,点击次数,购买次数", "u1,手机,5,1", "u2,服装,2,0")
    goods = table("商品ID,价格,分类", "g1,1999,手机", "g2,99,服装")
    dataset = prepare_tables([log], [goods]).dataset
    assert set(dataset.items) == {"g1", "g2", "category:手机", "category:服装"}
    row = dataset.item_row
    home = {item: dataset.domains[dataset.item_domain[row[item]]] for item in dataset.items}
    assert home == {
        "g1": "all",
        "g2": "all",
        "category:手机": "categories",
        "category:服装": "categories",
    }
    assert dataset.features.categorical["分类"][row["category:手机"]] == "手机"
    assert dataset.features.name[row["category:手机"]] == "手机"
    assert {dataset.domains[code] for code in dataset.interactions.domain} == {"categories"}


def test_domains_are_renamed_and_a_misspelt_one_is_an_error() -> None:
    log = table("user,item,country", "u,a,United Kingdom", "u,b,France", "u,c,Spain", "u,d,")
    schema = Schema(domains={"United Kingdom": "uk", "*": "rest"})
    assert prepare_tables([log], schema=schema).dataset.domains == ("rest", "uk", "unknown")
    with pytest.raises(DataError, match="no domain 'Frence' to rename; did you mean 'France'"):
        prepare_tables([log], schema=Schema(domains={"Frence": "fr"}))
    with pytest.raises(DataError, match="'Frence' to rename; did you mean 'France'"):
        prepare_tables([log], schema=Schema(domains={"Frence": "fr", "*": "rest"}))
    with pytest.raises(DataError, match="no table has a domain column"):
        prepare_tables([table("user,item", "u,a")], schema=Schema(domains={"x": "y"}))


def test_a_dropped_domain_removes_its_items_but_not_its_users() -> None:
    log = table("user,item", "u,a", "v,petrol")
    goods = table("item,domain", "a,FOOD", "b,FOOD", "petrol,FUEL")
    dataset = prepare_tables([log], [goods], Schema(drop_domains=("FUEL",))).dataset
    assert (dataset.users, dataset.items, dataset.domains) == (("u", "v"), ("a", "b"), ("FOOD",))
    assert dataset.cleaning["not a product"] == 1
    with pytest.raises(DataError, match="no rows are left outside the dropped domains FOOD, FUEL"):
        prepare_tables([log], [goods], Schema(drop_domains=("FOOD", "FUEL")))


def test_several_files_are_one_log() -> None:
    parts = [table("user,item", "u,a", "u,b"), pd.DataFrame({"customer_id": [7, 8], "sku": [1, 2]})]
    dataset = prepare_tables(parts).dataset
    assert (dataset.users, dataset.items) == (("7", "8", "u"), ("1", "2", "a", "b"))


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (["00123", "123"], ["00123", "123"]),
        (["17850.0", "", "12.0"], ["17850", "12"]),
        (["17850.0", "x"], ["17850.0", "x"]),
        ([17850.0, None, 3.0], ["17850", "3"]),
        ([17850, 3], ["17850", "3"]),
        ([float("inf"), 2.0], ["2"]),
        ([1, "1"], ["1"]),
    ],
)
def test_ids_are_strings_as_written(values: list[Any], ids: list[str]) -> None:
    assert read_ids(column(values)).names == ids


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=20)
)
def test_any_text_is_an_id(names: list[str]) -> None:
    names = [f"x{name}" for name in names]
    labels = read_ids(column_of(names))
    assert [labels.names[code] for code in labels.codes] == names


def test_ids_sort_as_numbers_only_if_all_are_integers() -> None:
    assert [["10", "9", "009"][i] for i in sort_ids(["10", "9", "009"])] == ["009", "9", "10"]
    assert [["10", "9", "a"][i] for i in sort_ids(["10", "9", "a"])] == ["10", "9", "a"]
    assert len(sort_ids(["9" * 10_000, "1"])) == 2


def test_cells_that_are_not_numbers_are_marked() -> None:
    numbers = read_numbers(column_of(["1.5", " 2 ", "", "inf", "nan", "x"]))
    assert numbers.values[:2].tolist() == [1.5, 2.0]
    assert np.isnan(numbers.values[2:]).all()
    assert numbers.invalid.tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize(
    "values",
    [
        ["2024-03-15 12:00:00", "2024-03-01"],
        ["2024-03-15T12:00:00Z", "2024-03-01T00:00:00+00:00"],
        ["1710504000", "1709251200"],
        ["1710504000000", "1709251200000"],
        [1710504000, 1709251200],
        ["3/15/2024 12:00", "3/1/2024 0:00"],
        ["15/03/2024 12:00", "01/03/2024 00:00"],
        ["15.03.2024 12:00:00", "01.03.2024 00:00:00"],
        ["2024/03/15 12:00", "2024/03/01 00:00"],
        ["2024年03月15日 12:00", "2024年03月01日 00:00"],
        pd.to_datetime(["2024-03-15 12:00", "2024-03-01 00:00"]).tolist(),
        pd.to_datetime(["2024-03-15 14:00", "2024-03-01 02:00"]).tz_localize("Etc/GMT-2").tolist(),
    ],
)
def test_times_of_many_forms(values: list[Any]) -> None:
    times = times_of(values)
    assert times.seconds.tolist() == [1710504000, 1709251200]
    assert not times.invalid.any()


def test_an_ambiguous_date_format_is_an_error() -> None:
    with pytest.raises(DataError, match=r"fits both .* set time_format"):
        times_of(["03/04/2024", "05/06/2024"])
    assert times_of(["03/04/2024"], "%d/%m/%Y").seconds.tolist() == [1712102400]
    assert times_of(["20240403"]).seconds.tolist() == [1712102400]


def test_times_far_out_of_range_do_not_overflow() -> None:
    times = times_of(["1710504000", "1710504001", "1710504002", "-5", "1e300", "inf", ""])
    assert times.out_of_range.tolist() == [False, False, False, True, True, False, False]
    assert times.invalid.tolist() == [False, False, False, False, False, True, True]


def test_a_row_number_without_a_name_does_not_hide_duplicates() -> None:
    log = pd.DataFrame({"Unnamed: 0": ["0", "1"], "user": ["u", "u"], "item": ["a", "a"]})
    assert clean_interactions([table_of(log)], Schema()).counts["duplicate"] == 1


def test_a_part_of_a_log_may_lack_domains_that_the_schema_renames() -> None:
    log, goods = table("user,item,country", "u,a,Market A"), table("item,country", "a,Market A")
    domains = {"Market A": "a", "Market B": "b", "Österreich": "at"}
    note = "no domain 'Market B', 'Österreich', which [domains] renames; known: Market A"
    prepared = prepare_tables([log], [goods], Schema(domains=domains))
    assert prepared.dataset.domains == ("a",)
    assert prepared.notes.count(note) == 1
    no_domain = table("user,item", "u,a")
    assert note in prepare_tables([no_domain], [goods], Schema(domains=domains)).notes


def test_events_of_rows_that_are_left_out_get_no_note() -> None:
    log = table("user,item,event", "u,a,view", ",b,dance", ",c,")
    assert not [note for note in clean_interactions([log], Schema()).notes if "event" in note]
    log = table("user,item,event", "u,a,dance", ",b,jump", "u,c,")
    unknown, blank = (n for n in clean_interactions([log], Schema()).notes if "event" in n)
    assert unknown.startswith("event 'dance' is not recognised")
    assert blank.startswith("1 row has no event")


def test_messages_list_the_user_s_own_columns() -> None:
    log = table("who,sku,InvoiceNo,Unnamed: 0", "u,a,1,0")
    schema = Schema({"user": "who"}, cancelled=("InvoiceNr", "C"))
    found = r"found who, sku, InvoiceNo; did you mean 'InvoiceNo'\?; correct cancelled"
    with pytest.raises(DataError, match=found):
        clean_interactions([log], schema)
