"""Tables in memory give the dataset that the same tables give as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tlrec_edge.data.prepare import SplitPlan, prepare_files
from tlrec_edge.data.store import dataset_hash
from tlrec_edge.errors import DataError
from tlrec_edge.pipeline import Dataset, DataWarning, Schema
from tlrec_edge.tabular.arrow import table_of

LOG = pd.DataFrame(
    {
        "user": [f"u{n % 7}" for n in range(60)],
        "item": [n * n % 11 for n in range(60)],
        "event": ["view", "purchase", "cart"] * 20,
        "timestamp": [f"2024-01-{1 + n % 28:02} 10:{n:02}" for n in range(60)],
    }
)
ITEMS = pd.DataFrame(
    {
        "item": range(11),
        "title": [f"thing {n}" for n in range(11)],
        "price": [n + 0.5 for n in range(11)],
    }
)


class Capsule:
    """A table of another library: all that is known of it is the Arrow PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def as_given(frame: pd.DataFrame) -> Any:
    return frame


def as_objects(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(object)


def as_arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame)


def as_capsule(frame: pd.DataFrame) -> Capsule:
    return Capsule(pa.Table.from_pandas(frame))


def as_mapping(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): frame[name].tolist() for name in frame}


def as_polars(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").from_pandas(frame)


@pytest.mark.parametrize(
    "convert", [as_given, as_objects, as_arrow, as_capsule, as_mapping, as_polars]
)
def test_frames_give_the_dataset_of_the_files(tmp_path: Path, convert: Any) -> None:
    LOG.to_csv(tmp_path / "log.csv", index=False)
    ITEMS.to_csv(tmp_path / "items.csv", index=False)
    plan = SplitPlan("time", negatives=5)
    expected = prepare_files([tmp_path / "log.csv"], [tmp_path / "items.csv"], plan=plan).dataset
    found = Dataset.from_frames(convert(LOG), convert(ITEMS), split=plan)
    assert dataset_hash(found) == dataset_hash(expected)
    parts = [convert(LOG.iloc[:20]), convert(LOG.iloc[20:])]
    assert dataset_hash(Dataset.from_frames(parts, convert(ITEMS), split=plan)) == dataset_hash(
        expected
    )


def test_times_and_numbers_of_frames_keep_their_values() -> None:
    frame = pd.DataFrame(
        {
            "user": [1.0, 2.0, np.nan],
            "item": ["a", "b", "c"],
            "time": pd.to_datetime(["2024-01-31 13:45", "2024-02-01 00:00", "2024-02-02 00:00"]),
        }
    )
    dataset = Dataset.from_frames(frame)
    assert dataset.users == ("1", "2")
    assert dataset.interactions.time.tolist() == [1706708700, 1706745600]
    aware = frame.assign(time=frame["time"].dt.tz_localize("Europe/Berlin"))
    assert Dataset.from_frames(aware).interactions.time.tolist() == [1706705100, 1706742000]


def test_missing_values_of_every_kind_are_missing() -> None:
    users = ["ann", None, float("nan"), pd.NA, pd.NaT, 7]
    frame = pd.DataFrame({"user": pd.Series(users, dtype=object), "item": list("abcdef")})
    with pytest.warns(DataWarning, match="no time column"):
        dataset = Dataset.from_frames(frame)
    assert dataset.users == ("7", "ann")
    assert dataset.cleaning["no user id"] == 4


def test_what_is_not_a_table_is_refused() -> None:
    for wrong in (7, "log.csv", [[1, 2]], None):
        with pytest.raises(DataError, match="expected a pandas, polars or pyarrow table"):
            Dataset.from_frames(wrong)
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["user", "user"])
    with pytest.raises(DataError, match="two columns have the same name"):
        table_of(twice)
    with pytest.raises(DataError, match="no column 'who' for user; found user"):
        Dataset.from_frames(LOG, schema=Schema(interactions={"user": "who"}))


def test_a_schema_may_be_a_mapping_as_in_a_toml_file(tmp_path: Path) -> None:
    frame = LOG.rename(columns={"user": "who"})
    frame.to_csv(tmp_path / "log.csv", index=False)
    tables = {"interactions": {"user": "who"}, "clean": {"max_per_user": 5}}
    schema = Schema(interactions={"user": "who"}, max_per_user=5)
    expected = dataset_hash(Dataset.from_frames(frame, schema=schema))
    assert dataset_hash(Dataset.from_frames(frame, schema=tables)) == expected
    assert dataset_hash(prepare_files([tmp_path / "log.csv"], schema=tables).dataset) == expected


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"user": "who"}, "unknown key 'user' in top level"),
        ({"interactions": "who"}, "'interactions' must be a table"),
        ({"interactions": {"user": ["who"]}}, "'user' is ['who'], expected text"),
        ({"interactions": {1: "who"}}, "the key 1 in [interactions] is not a text"),
        ({1: {}}, "the key 1 in top level is not a text"),
        ({"domains": {1: "de"}}, "the key 1 in [domains] is not a text"),
        ("schema.toml", "schema is 'schema.toml', expected a Schema or its tables"),
    ],
)
def test_a_schema_that_is_not_valid_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        Dataset.from_frames(LOG, schema=schema)
    assert words in str(caught.value)


def test_a_split_that_is_not_a_plan_is_refused() -> None:
    split: Any = {"kind": "time"}
    with pytest.raises(DataError, match=r"split is .*, expected a SplitPlan"):
        Dataset.from_frames(LOG, split=split)


def test_tables_without_rows_are_refused() -> None:
    for empty in (LOG[:0], pd.DataFrame(), [LOG[:0], LOG[:0]], []):
        with pytest.raises(DataError, match="interactions: the table has no rows"):
            Dataset.from_frames(empty)
    with pytest.warns(DataWarning, match="items lists 0 of the log's 6 items"):
        found = Dataset.from_frames(LOG, ITEMS[:0])
    assert found.items == Dataset.from_frames(LOG).items


def test_what_is_odd_about_a_frame_is_warned_of_once() -> None:
    frame = LOG.assign(event="dance", user=[*LOG["user"][:-1], "NULL"])
    with pytest.warns(DataWarning) as caught:
        Dataset.from_frames([frame, frame])
    messages = [str(warning.message) for warning in caught]
    assert len(set(messages)) == len(messages)
    event, user = sorted(messages)
    assert event.startswith("event 'dance' is not recognised")
    assert user.startswith("user 'NULL' has")
    assert {Path(warning.filename).name for warning in caught} == {Path(__file__).name}


def test_messages_on_frames_name_the_argument_of_python() -> None:
    with pytest.raises(DataError) as caught:
        Dataset.from_frames(LOG.rename(columns={"user": "who"}))
    assert 'schema={"interactions": {"user": "column"}}' in str(caught.value)
    with pytest.raises(DataError) as caught_on_items:
        Dataset.from_frames(LOG, ITEMS.rename(columns={"item": "what"}))
    assert 'schema={"items": {"item": "column"}}' in str(caught_on_items.value)
    with pytest.raises(DataError, match="the columns are called 0, 1, 2, 3") as caught_on_names:
        Dataset.from_frames(LOG.set_axis(list("0123"), axis=1))
    for error in (caught, caught_on_items, caught_on_names):
        assert "--schema" not in str(error.value)


def test_the_text_of_a_dataset_is_short() -> None:
    text = repr(Dataset.from_frames(LOG))
    assert text.startswith("<Dataset: 60 interactions, 7 users, 6 items, 1 domain ('all'), split")
    assert len(text) < 120
