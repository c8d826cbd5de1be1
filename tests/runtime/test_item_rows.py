"""Rows of items give the same answers as their ids."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import bundles
from tlrec_edge import DataError, History, ItemRows, Recommender, UnknownIdError
from tlrec_edge.core.sparse import SparseSum, Workspace

IDS = ["i3", "i70", "nobody", "i3", "i59"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "bundle"
    bundles.build(path)
    return path


@pytest.fixture
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened


def test_rows_score_as_their_ids_do(rec: Recommender) -> None:
    rows = rec.rows(IDS)
    assert list(rows) == [3, 70, -1, 3, 59]
    candidates = [f"i{row}" for row in range(60)]
    candidate_rows = rec.rows(candidates)
    for by_id, by_row in (
        (IDS, rows),
        (History(IDS, events=["view"] * 5), History(rows, events=["view"] * 5)),
    ):
        assert rec.score(by_id, candidates).tolist() == rec.score(by_row, candidate_rows).tolist()
        assert rec.recommend(by_id, 5).items == rec.recommend(by_row, 5, allow=candidate_rows).items
    assert (
        rec.score_pairs([rows, IDS], rec.rows(["i1", "i1"])).tolist()
        == [rec.score(IDS, ["i1"])[0]] * 2
    )
    assert (
        rec.recommend(IDS, 3, exclude=rec.rows(["i1"])).items
        == rec.recommend(IDS, 3, exclude=["i1"]).items
    )


def test_a_history_of_rows_is_cached(rec: Recommender) -> None:
    rec.score(rec.rows(IDS), ["i1"])
    rec.score(rec.rows(IDS), ["i2"])
    assert rec.stats()["cache_hits"] == 1


@given(st.integers(0, len(IDS)))
def test_rows_can_be_appended(path: Path, at: int) -> None:
    with Recommender.open(path) as rec:
        rows = rec.rows(IDS[:at]) + rec.rows(IDS[at:])
        assert rows == rec.rows(IDS)
        assert rec.score(rows, ["i1"]).tolist() == rec.score(IDS, ["i1"]).tolist()
    with pytest.raises(TypeError):
        rows + IDS  # type: ignore[operator]  # what is tested


def test_rows_can_be_sent_to_another_process(rec: Recommender) -> None:
    rows = rec.rows(IDS)
    code = """
import pickle, sys
rows = pickle.load(sys.stdin.buffer)
pickle.dump(rows[:], sys.stdout.buffer)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=pickle.dumps(rows), capture_output=True, check=True)
    received = pickle.loads(done.stdout)
    assert (received, hash(received)) == (rows, hash(rows))
    assert list(rows[1:3]) == [70, -1]


@pytest.mark.parametrize("repeat", [0.0, 0.5])
def test_a_pickled_state_holds_weights_instead_of_tables(tmp_path: Path, repeat: float) -> None:
    bundles.build(tmp_path / "b")
    bundles.edit_manifest(tmp_path / "b", lambda manifest: manifest.update(repeat=repeat))
    with Recommender.open(tmp_path / "b") as rec:
        state = rec.user_state(["i1", "i70", "i3"])
        weights = state.wide.weights
        sent = pickle.loads(pickle.dumps(state))
        assert isinstance(sent.wide.weights, np.ndarray)
        assert sent.wide.weights.shape == sent.wide.columns.shape
        expected = rec.recommend(state, 60, exclude=None)
        assert expected.scores.tolist() == rec.recommend(sent, 60, exclude=None).scores.tolist()
        assert state.wide.weights is weights


@pytest.mark.parametrize("values", [[1.7], [True], ["a"], None, [float("nan")]])
def test_values_that_are_not_row_numbers_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match="expected a list of row numbers"):
        ItemRows(values)


def test_rows_are_not_integer_ids(path: Path, tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", bundles.Small(ids=[str(9 + row) for row in range(80)]))
    with Recommender.open(tmp_path / "b") as rec:
        assert list(rec.rows([9, 10])) == [0, 1]
        apart = rec.score_pairs([[9], ItemRows(np.array([9]))], ["20", "20"])
        assert apart[0] == rec.score([9], ["20"])[0] != apart[1]
        assert apart[1] == rec.score(["18"], ["20"])[0]


def test_rows_of_another_bundle_are_refused(rec: Recommender, path: Path) -> None:
    calls: tuple[Callable[[ItemRows], object], ...] = (
        lambda rows: rec.score(["i1"], rows),
        lambda rows: rec.score(rows, ["i1"]),
    )
    for call in calls:
        with pytest.raises(DataError, match="row 80 is not in this bundle"):
            call(ItemRows(np.array([1, 80])))
    with pytest.raises(DataError, match="from -1 on"):
        ItemRows(np.array([-2]))
    with Recommender.open(path, unknown="error") as strict, pytest.raises(UnknownIdError):
        strict.score(["i1"], ItemRows(np.array([-1])))


def test_the_caller_may_reuse_its_array() -> None:
    values = np.array([1, 2], np.int32)
    rows = ItemRows(values)
    values[0] = 7
    assert list(rows) == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        rows.values[0] = 3


entries = st.lists(st.tuples(st.integers(0, 11), st.floats(-4, 4, width=32)), max_size=40)


@given(entries=entries, positions=st.lists(st.integers(0, 11), min_size=1, max_size=20))
def test_a_sparse_sum_is_the_same_in_every_way_of_reading(
    entries: list[tuple[int, float]], positions: list[int]
) -> None:
    columns = np.array([column for column, _ in entries], np.int32)
    weights = np.array([weight for _, weight in entries], np.float64)
    total = SparseSum(columns, weights)
    workspace = Workspace(12)
    found = total.at(np.array(positions, np.int32), workspace)
    assert not workspace.requested.any()
    dense = np.zeros(12, np.float32)
    columns_read, sums = total.summed
    assert (np.diff(columns_read) > 0).all()
    dense[columns_read] = sums
    assert found.tolist() == dense[positions].tolist()
    expected = np.zeros(12)
    np.add.at(expected, columns, weights)
    np.testing.assert_allclose(dense, expected, atol=1e-5)


def test_reading_one_sum_does_not_block_another() -> None:
    """Else a child that is forked meanwhile would wait forever."""
    begun, release = threading.Event(), threading.Event()

    class Slow:
        def take(self, at: np.ndarray) -> np.ndarray:
            begun.set()
            release.wait(20)
            return np.ones(len(at))

    columns = np.arange(3)
    slow = SparseSum(columns, Slow())  # type: ignore[arg-type]  # a stand-in for Weights
    quick = SparseSum(columns, np.ones(3))
    reader = threading.Thread(target=lambda: slow.summed)
    other = threading.Thread(target=lambda: quick.summed, daemon=True)
    reader.start()
    assert begun.wait(10)
    other.start()
    other.join(5)
    waiting = other.is_alive()
    release.set()
    reader.join()
    assert not waiting
