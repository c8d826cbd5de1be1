"""Files like public logs are read right, or refused; training and serving agree."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from helpers.odd_files import ODD_FILES
from helpers.public_logs import CASES, Case, Row
from tlrec_edge.choices import EVENTS
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import Prepared, prepare_files
from tlrec_edge.errors import DataError
from tlrec_edge.runtime.history import History
from tlrec_edge.tabular.histories import read_histories
from tlrec_edge.tabular.schema import Schema, parse_schema

each_case = pytest.mark.parametrize(
    "case", [*CASES.values(), *ODD_FILES.values()], ids=[*CASES, *ODD_FILES]
)


def write(folder: Path, case: Case) -> tuple[Path, list[Path]]:
    """Write the files of a case; return the log and the item tables."""
    log = folder / "log.csv"
    if isinstance(case.log, bytes):
        log.write_bytes(case.log)
    else:
        for name, content in case.log.items():
            (log / name).parent.mkdir(parents=True, exist_ok=True)
            (log / name).write_bytes(content)
    if case.items is None:
        return log, []
    (folder / "items.csv").write_bytes(case.items)
    return log, [folder / "items.csv"]


def prepared(folder: Path, case: Case) -> Prepared:
    log, items = write(folder, case)
    return prepare_files([log], items, parse_schema(case.schema))


def rows_of(dataset: Dataset) -> list[Row]:
    """Return what a dataset holds, as the cases say it."""
    log, has_time = dataset.interactions, dataset.has_time
    times = [str(datetime.fromtimestamp(int(t), UTC))[:19] if has_time else "" for t in log.time]
    users, items = (dataset.users[u] for u in log.user), (dataset.items[i] for i in log.item)
    return list(zip(users, items, (EVENTS[e] for e in log.event), times, strict=True))


@each_case
def test_a_log_is_read_or_refused(tmp_path: Path, case: Case) -> None:
    if case.error:
        with pytest.raises(DataError) as caught:
            prepared(tmp_path, case)
        assert case.error in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    found = prepared(tmp_path, case)
    assert sorted(rows_of(found.dataset)) == sorted(case.rows)
    assert rows_of(found.dataset) == case.rows or len({row[3] for row in case.rows}) == 1
    notes = "\n".join(found.notes)
    assert case.note in notes
    assert bool(notes) == bool(case.note), notes
    if case.kinds is not None:
        assert found.item_columns == case.kinds
    if case.numbers is not None:
        column, values = case.numbers
        np.testing.assert_allclose(found.dataset.features.numeric[column], values, rtol=1e-6)


@each_case
def test_serving_reads_what_training_reads(tmp_path: Path, case: Case) -> None:
    log, _ = write(tmp_path, case)
    schema = parse_schema(case.schema)
    if case.error and case.items is None:
        messages = []
        for read in (prepare_files, lambda paths, schema: read_histories(paths[0], schema=schema)):
            with pytest.raises(DataError) as caught:
                read([log], schema=schema)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        return
    dataset = prepare_files([log], schema=schema).dataset
    for carried in (schema, dataset.schema, dataset.schema.to_json()):
        assert _sorted(read_histories(log, schema=carried, strict=False)) == _histories(dataset)


def _histories(dataset: Dataset) -> dict[str, tuple[list[str], list[str], list[float]]]:
    """Return items, events and times of each user of a dataset."""
    log = dataset.interactions
    found = {}
    for user in np.unique(log.user):
        rows = log.user == user
        found[dataset.users[user]] = (
            [dataset.items[item] for item in log.item[rows]],
            [EVENTS[event] for event in log.event[rows]],
            log.time[rows].tolist(),
        )
    return found


def _sorted(
    histories: dict[str, History],
) -> dict[str, tuple[list[str], list[str], list[float]]]:
    """Return items, events and times of each history, in the order of its times."""
    found = {}
    for user, history in histories.items():
        n = len(history.items)
        times = list(history.timestamps or [0.0] * n)
        events = [EVENTS[int(e)] for e in history.events] if history.events else ["purchase"] * n
        order = sorted(range(n), key=times.__getitem__)
        items = [str(history.items[at]) for at in order]
        found[user] = (items, [events[at] for at in order], [times[at] for at in order])
    return found


def training_and_one_user(folder: Path, training: list[str], one: list[str]) -> list[float]:
    """Return the times of one user's log, read as the log of the training was."""
    for name, times in (("all.csv", training), ("one.csv", one)):
        rows = [f"u{at % 3},i{at},{time}" for at, time in enumerate(times)]
        (folder / name).write_text("\n".join(["user,item,time", *rows]) + "\n")
    schema = prepare_files([folder / "all.csv"]).dataset.schema
    histories = read_histories(folder / "one.csv", schema=schema.to_json(), strict=False)
    return sorted(time for history in histories.values() for time in history.timestamps or ())


def test_the_form_of_the_times_of_the_training_is_carried(tmp_path: Path) -> None:
    """A short log does not show which number is the day, nor that small numbers are steps."""
    days = training_and_one_user(tmp_path, ["31/01/2024", "02/03/2024"], ["02/03/2024"])
    assert days == [datetime(2024, 3, 2, tzinfo=UTC).timestamp()]
    with pytest.raises(DataError, match="fits both"):
        read_histories(tmp_path / "one.csv")
    steps = training_and_one_user(tmp_path, ["1", "2", "31000", "90000"], ["31000", "31001"])
    assert steps == [31000.0, 31001.0]
    dates = training_and_one_user(tmp_path, ["45322.5", "45323.5"], ["45400"])
    assert dates == [datetime(2024, 4, 18, tzinfo=UTC).timestamp()]


def test_a_log_may_be_written_otherwise_than_that_of_the_training(tmp_path: Path) -> None:
    for training in (["31/01/2024", "02/03/2024"], ["1700000000"], ["45322.5"], ["20240131"]):
        found = training_and_one_user(tmp_path, training, ["2024-03-02", "2024-03-03"])
        assert found == [1709337600.0, 1709424000.0]


def test_a_log_may_lack_what_the_schema_of_the_training_names(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,i\n")
    schema = Schema(interactions={"user": "who"}, domains={"x": "y"}, cancelled=("Invoice", "C"))
    histories = read_histories(tmp_path / "log.csv", schema=schema, strict=False)
    assert histories == {"u": History(["i"])}
    with pytest.raises(DataError, match="no column 'who' for user"):
        read_histories(tmp_path / "log.csv", schema=schema)
