"""Item tables: the kind of each feature column, repeated rows, and data without content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlrec_edge.data.prepare import prepare_tables
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.schema import Schema

LOG = pd.DataFrame({"user": ["u", "v"], "item": ["a", "ghost"]})


def test_kinds_are_guessed_from_names_and_values() -> None:
    rows = 60
    goods = pd.DataFrame(
        {
            "item": [f"i{n}" for n in range(rows)],
            "title": [f"thing {n}" for n in range(rows)],
            "分类": [f"k{n}" for n in range(rows)],
            "价格": [f"{n}.5" for n in range(rows - 1)] + ["nan"],
            "brand_id": [str(n % 3) for n in range(rows)],
            "colour": ["red", "blue"] * (rows // 2),
            "story": [f"once {n}" for n in range(rows)],
        }
    )
    prepared = prepare_tables([LOG], [goods])
    assert prepared.item_columns == {
        "title": "text",
        "分类": "categorical",
        "价格": "numeric",
        "brand_id": "categorical",
        "colour": "categorical",
        "story": "text",
    }
    assert prepared.dataset.features.name[prepared.dataset.item_row["i3"]] == "thing 3"


def test_declared_kinds_win() -> None:
    goods = pd.DataFrame({"item": ["a", "b"], "size": ["1", "2"], "note": ["x", "y"]})
    features = prepare_tables(
        [LOG], [goods], Schema(features={"size": "categorical", "note": "ignore"})
    ).dataset.features
    assert (dict(features.categorical), dict(features.text), dict(features.numeric)) == (
        {"size": ("1", "2", "")},
        {},
        {},
    )
    with pytest.raises(DataError, match=r"no column 'sise'.*did you mean 'size'"):
        prepare_tables([LOG], [goods], Schema(features={"sise": "numeric"}))


def test_infinite_and_missing_features_become_missing_and_are_counted() -> None:
    goods = pd.DataFrame(
        {
            "商品ID": ["a", "b", "c", "d"],
            "价格": ["1", "inf", "nan", ""],
            "评分": ["4.5", "4", "x", "3"],
        }
    )
    dataset = prepare_tables([LOG], [goods], Schema(features={"评分": "numeric"})).dataset
    assert np.isnan(dataset.features.numeric["价格"]).tolist() == [False, True, True, True, True]
    assert dataset.cleaning["feature values made missing"] == 3


def test_the_first_row_of_an_item_wins_and_unsold_items_stay() -> None:
    goods = [
        pd.DataFrame(
            {
                "item": ["a", "a", ""],
                "title": ["first", "second", "lost"],
                "domain": ["x", "y", "x"],
            }
        ),
        pd.DataFrame({"item": ["new"], "title": ["never sold"], "domain": ["y"]}),
    ]
    dataset = prepare_tables([LOG], goods).dataset
    assert dataset.items == ("a", "ghost", "new")
    assert dataset.features.text["title"] == ("first", "", "never sold")
    assert dataset.features.name == ("first", "ghost", "never sold")
    assert [dataset.domains[code] if code >= 0 else None for code in dataset.item_domain] == [
        "x",
        None,
        "y",
    ]
    assert dataset.cleaning["item without metadata (kept)"] == 1
    assert dataset.cleaning["item rows repeated"] == dataset.cleaning["item rows without id"] == 1
    assert [dataset.domains[code] for code in dataset.interactions.domain] == ["x", "unknown"]


def test_ids_alone_are_enough() -> None:
    dataset = prepare_tables([LOG]).dataset
    assert (dataset.domains, dataset.has_time) == (("all",), False)
    assert dataset.features.name == dataset.items
    assert not any((dataset.features.text, dataset.features.categorical, dataset.features.numeric))


def test_without_an_item_file_the_log_describes_the_items() -> None:
    log = pd.DataFrame(
        {
            "user": list("uvwx"),
            "item": list("aaab"),
            "Description": ["CUP", "MUG", "MUG", ""],
            "price": ["1", "2", "9", "5"],
            "country": list("xxyy"),
        }
    )
    features = prepare_tables([log]).dataset.features
    assert features.text["title"] == ("MUG", "")
    assert features.name == ("MUG", "b")
    assert features.numeric["price"].tolist() == [2.0, 5.0]


def test_with_an_item_file_the_log_adds_no_price() -> None:
    """A price that only sold items have would give away the items of the test period."""
    log = LOG.assign(price=["1", "2"])
    assert (
        "price"
        not in prepare_tables(
            [log], [pd.DataFrame({"item": ["a"], "title": ["A"]})]
        ).dataset.features.numeric
    )


GENRES = pd.DataFrame(
    {
        "item": [f"i{n}" for n in range(40)],
        "genres": ["Action|Comedy", "Comedy", "Drama|Action", "Drama"] * 10,
        "code": ["A|1", "B|2", "C|3", "D"] * 10,
    }
)


def test_a_column_that_looks_like_lists_gets_a_note() -> None:
    prepared = prepare_tables([LOG], [GENRES])
    (note,) = [note for note in prepared.notes if "list =" in note]
    assert note == (
        "genres is taken as categorical: 'Action|Comedy' is one category; if it is several, set "
        'list = { "genres" = "|" } under [items] in a schema'
    )
    for schema in (Schema(lists={"genres": "|"}), Schema(features={"genres": "categorical"})):
        prepared = prepare_tables([LOG], [GENRES], schema)
        assert not [note for note in prepared.notes if "list =" in note]


def test_a_list_is_shown_as_one_and_its_column_must_exist() -> None:
    prepared = prepare_tables([LOG], [GENRES], Schema(lists={"genres": "|"}))
    assert prepared.item_columns["genres"] == "list, separated by |"
    with pytest.raises(DataError, match=r"no column 'genre', .* a list; .*did you mean 'genres'"):
        prepare_tables([LOG], [GENRES], Schema(lists={"genre": "|"}))


@pytest.mark.parametrize(
    ("declared", "role"),
    [
        ({"items": {"category": "genres"}}, "category"),
        ({"items": {"name": "genres"}}, "name"),
        ({"features": {"genres": "categorical"}}, "categorical"),
    ],
)
def test_a_list_can_not_have_another_role(declared: dict[str, Any], role: str) -> None:
    with pytest.raises(DataError, match=f"'genres' is declared as {role} and as a list"):
        Schema(**declared, lists={"genres": "|"})
