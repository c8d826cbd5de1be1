"""Item tables with one row for each property."""

from __future__ import annotations

from tlrec_edge.tabular.arrow import table_of
from tlrec_edge.tabular.properties import widen_properties


def test_the_newest_value_of_each_frequent_property_counts() -> None:
    rows = [("3", f"i{n}", "color", "red") for n in range(50)]
    rows += [("1", "i0", "color", "blue"), ("4", "i1", "color", "green"), ("1", "i2", "rare", "x")]
    time, item, name, value = map(list, zip(*rows, strict=True))
    columns = {"timestamp": time, "itemid": item, "property": name, "value": value}
    wide = widen_properties(table_of(columns))
    assert list(wide.columns) == ["item", "color"]
    assert wide.columns["item"].texts() == [f"i{n}" for n in range(50)]
    assert wide.columns["color"].texts() == ["red", "green", *["red"] * 48]
    assert "1 of 2 properties are columns" in wide.notes[0]
    without_times = widen_properties(
        table_of({k: v for k, v in columns.items() if k != "timestamp"})
    )
    assert without_times.columns["color"].texts()[:2] == ["blue", "green"]


def test_other_tables_stay_as_they_are() -> None:
    for columns in (
        {"item": ["a"], "value": ["1"]},
        {"item": ["a"], "property": ["b"], "value": ["1"], "price": ["2"]},
    ):
        table = table_of(columns)
        assert widen_properties(table) is table
