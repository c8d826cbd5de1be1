"""Dataset folders: round trip, hashes that detect changes, and atomic writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlrec_edge.data.dataset import Dataset, EvalRows, Interactions, ItemTable, Split
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.store import dataset_hash, load_dataset, save_dataset, split_hash
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError


def make_log(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": rng.integers(0, 6, 40).astype(str),
            "item": [f"i{n}" for n in rng.integers(0, 9, 40)],
            "time": rng.integers(1_700_000_000, 1_700_009_999, 40),
            "domain": rng.choice(["x", "y"], 40),
        }
    )


def small(seed: int = 0) -> Dataset:
    log = make_log(seed)
    goods = pd.DataFrame(
        [("i0", "a", "1", "k"), ("i1", 'b, "c"', "nan", ""), ("new", "🛒", "3", "l")],
        columns=["item", "title", "price", "kind_id"],
    )
    return prepare_tables([log], [goods]).dataset


def assert_same(one: Dataset, two: Dataset) -> None:
    assert (one.users, one.items, one.domains, one.source) == (
        two.users,
        two.items,
        two.domains,
        two.source,
    )
    assert dict(one.cleaning) == dict(two.cleaning)
    for name in Interactions.__dataclass_fields__:
        left, right = getattr(one.interactions, name), getattr(two.interactions, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.item_domain, two.item_domain)
    assert one.features.name == two.features.name
    assert (dict(one.features.text), dict(one.features.categorical)) == (
        dict(two.features.text),
        dict(two.features.categorical),
    )
    for column, numbers in one.features.numeric.items():
        np.testing.assert_array_equal(numbers, two.features.numeric[column])
    np.testing.assert_array_equal(one.split.role, two.split.role)
    np.testing.assert_array_equal(one.split.fold, two.split.fold)
    assert one.split.settings == two.split.settings
    assert dataset_hash(one) == dataset_hash(two)


def test_a_dataset_survives_the_folder(tmp_path: Path) -> None:
    save_dataset(small(), tmp_path / "a" / "ds")
    assert_same(small(), load_dataset(tmp_path / "a" / "ds"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["ds"]


@pytest.mark.parametrize("width", [0, 2])
def test_given_rows_survive(tmp_path: Path, width: int) -> None:
    dataset = small()
    rows = EvalRows(
        np.array([0, 1], np.int32), np.array([1, 2], np.int32), np.full((2, width), 3, np.int32)
    )
    split = Split(
        "given", dataset.split.role, dataset.split.fold, refit=False, negatives=7, rows=rows
    )
    dataset = dataset.replace(split=split)
    save_dataset(dataset, tmp_path / "ds")
    back = load_dataset(tmp_path / "ds")
    assert_same(dataset, back)
    assert back.split.rows is not None
    assert back.split.rows.negatives.shape == (2, width)
    assert (back.split.refit, back.split.negatives, back.split.kind) == (False, 7, "given")


names = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    min_size=1,
    max_size=8,
    unique=True,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    users=names, items=names, column=st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
)
def test_any_id_and_column_name_survives(
    tmp_path: Path, users: list[str], items: list[str], column: str
) -> None:
    n = len(users)
    zeros = np.zeros(n, np.int32)
    table = ItemTable(
        name=tuple(items),
        text={column: tuple(items)},
        categorical={column: tuple(items)},
        numeric={column: np.full(len(items), np.nan, np.float32)},
    )
    log = Interactions(
        np.arange(n, dtype=np.int32),
        zeros,
        zeros,
        zeros,
        np.ones(n, np.float32),
        np.zeros(n, np.int64),
        zeros,
    )
    dataset = Dataset(
        tuple(users),
        tuple(items),
        ("all",),
        log,
        table,
        Split("leave-one-out", np.zeros(n, np.int8), np.full(n, -1, np.int32)),
        np.full(len(items), -1, np.int32),
    )
    save_dataset(dataset, tmp_path / "ds")
    assert_same(dataset, load_dataset(tmp_path / "ds"))


def test_a_very_long_id_survives(tmp_path: Path) -> None:
    long = "9" * 10_000
    dataset = prepare_tables([pd.DataFrame({"user": [long, "1"], "item": ["a", long]})]).dataset
    save_dataset(dataset, tmp_path / "ds")
    assert long in load_dataset(tmp_path / "ds").user_row


def test_the_hashes_of_the_data_and_of_the_split_differ() -> None:
    one, other = small(), small(seed=1)
    same_data = one.replace(split=Split("time", one.split.role, one.split.fold))
    assert dataset_hash(one) == dataset_hash(small())
    assert dataset_hash(one) != dataset_hash(other)
    assert split_hash(one) != split_hash(same_data)
    assert dataset_hash(one) != dataset_hash(same_data)
    assert dataset_hash(one) == dataset_hash(one.replace(source="elsewhere", cleaning={}))


def test_a_dataset_is_replaced_but_nothing_else_is(tmp_path: Path) -> None:
    save_dataset(small(), tmp_path / "ds")
    save_dataset(small(1), tmp_path / "ds")
    assert_same(small(1), load_dataset(tmp_path / "ds"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    for path in (tmp_path / "photos", tmp_path / "photos" / "cat.jpg"):
        with pytest.raises(
            DataError, match=r"exists and is not a dataset .*; choose another --out"
        ):
            save_dataset(small(), path)
    (tmp_path / "hollow").mkdir()
    save_dataset(small(), tmp_path / "hollow")


def test_a_failed_write_leaves_the_old_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dataset(small(), tmp_path / "ds")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(DataError, match="No space left on device; nothing was changed"):
        save_dataset(small(1), tmp_path / "ds")
    assert_same(small(), load_dataset(tmp_path / "ds"))
    assert [path.name for path in tmp_path.iterdir()] == ["ds"]


def test_a_folder_that_is_not_a_dataset_is_explained(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nope does not exist: pass a folder written by .tlrec-edge prep"
    ):
        load_dataset(tmp_path / "nope")
    with pytest.raises(DataError, match=r"is not a dataset"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["interactions", "users", "items"])
def test_a_missing_or_cut_file_is_named(tmp_path: Path, name: str) -> None:
    save_dataset(small(), tmp_path / "ds")
    file = tmp_path / "ds" / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{name}.parquet is damaged; run prepare again"):
        load_dataset(tmp_path / "ds")
    file.unlink()
    with pytest.raises(DataError, match=f"{name}.parquet is missing; run prepare again"):
        load_dataset(tmp_path / "ds")


def test_an_altered_dataset_is_refused(tmp_path: Path) -> None:
    save_dataset(small(), tmp_path / "ds")
    users = pd.read_parquet(tmp_path / "ds" / "users.parquet")
    users.assign(id=users["id"].str.replace("1", "one")).to_parquet(
        tmp_path / "ds" / "users.parquet"
    )
    with pytest.raises(DataError, match="was altered after it was written"):
        load_dataset(tmp_path / "ds")
    head = tmp_path / "ds" / "dataset.json"
    head.write_text(json.dumps({**json.loads(head.read_text()), "format": 99}))
    with pytest.raises(DataError, match="dataset format 99, but this version reads 1"):
        load_dataset(tmp_path / "ds")


def test_a_candidates_file_goes_with_its_split_only() -> None:
    with pytest.raises(DataError, match="goes with --split given"):
        SplitPlan("time", candidates=Path("x.tsv"))


def test_a_table_of_more_rows_than_its_file_can_hold_is_not_read(tmp_path: Path) -> None:
    save_dataset(small(), tmp_path / "ds")
    file, rows = tmp_path / "ds" / "interactions.parquet", 40_000_000
    zeros = pa.array(np.zeros(rows, np.int8))
    file.unlink()
    pq.write_table(pa.table({"user": zeros}), file)
    assert file.stat().st_size < rows / 200
    taken = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"interactions.parquet has 40,000,000 rows in .* bytes"):
        load_dataset(tmp_path / "ds")
    assert pa.total_allocated_bytes() <= taken


def test_more_negatives_than_candidates_take_no_memory() -> None:
    data = prepare_tables([make_log()], [], plan=SplitPlan(negatives=10**9)).dataset
    rows = make_tasks(data, data.domains).final.rows
    assert len(rows)
    assert rows.negatives.shape[1] <= len(data.items)


def of_rows(data: Dataset, **changes: Any) -> Split:
    zero = np.zeros(1, np.int32)
    rows = EvalRows(zero, zero, np.zeros((1, 2), np.int32))
    return replace(data.split, kind="given", rows=replace(rows, **changes))


CODES: dict[str, Callable[[Dataset], dict[str, Any]]] = {
    "domain of an item": lambda data: {"item_domain": data.item_domain + 10**6},
    "negative domain of an item": lambda data: {"item_domain": data.item_domain - 10},
    "role": lambda data: {"split": replace(data.split, role=data.split.role + 100)},
    "fold": lambda data: {"split": replace(data.split, fold=data.split.fold + 10**6)},
    "event": lambda data: {
        "interactions": replace(data.interactions, event=data.interactions.event + 100)
    },
    "user of a row": lambda data: {"split": of_rows(data, user=np.array([10**6], np.int32))},
    "item of a row": lambda data: {"split": of_rows(data, item=np.array([-1], np.int32))},
    "negative of a row": lambda data: {
        "split": of_rows(data, negatives=np.array([[0, 10**6]], np.int32))
    },
    "negatives of another number of rows": lambda data: {
        "split": of_rows(data, negatives=np.zeros((2, 2), np.int32))
    },
    "number of negatives": lambda data: {"split": replace(data.split, negatives=-1)},
    "seed": lambda data: {"split": replace(data.split, seed=-1)},
    "kind": lambda data: {"split": replace(data.split, kind="other")},
}


@pytest.mark.parametrize("case", CODES)
def test_codes_outside_their_tables_are_refused(case: str) -> None:
    data = small()
    with pytest.raises(DataError):
        data.replace(**CODES[case](data))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of threads")
def test_reading_starts_no_threads(tmp_path: Path) -> None:
    """A thread of Arrow that still holds the file when Python exits would abort the process."""
    save_dataset(small(), tmp_path / "data")
    script = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from tlrec_edge.data.store import load_dataset
from tlrec_edge.tabular.tables import read_table

folder = Path(sys.argv[1])
before = len(os.listdir("/proc/self/task"))
load_dataset(folder)
read_table(folder / "users.parquet")
print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "0\n"
