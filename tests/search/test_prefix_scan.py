"""Heads: a top-k that reads few rows is that of a full scan, bit for bit, for every user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scans import ITEMS, full_scan
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bench.synthetic import SynthConfig, synthesize
from tlrec_edge.core.sparse import SparseSum
from tlrec_edge.core.topk import top_k
from tlrec_edge.runtime.candidates import AddedItems
from tlrec_edge.search import fit_prefix_bound as head_fit
from tlrec_edge.search import prefix_scan as scan
from tlrec_edge.search.fit_prefix_bound import fit_prefix_bound
from tlrec_edge.search.prefix_scan import scan_graph
from tlrec_edge.search.user_state import UserState


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=56, interest=8, wide=6))
    return path


@pytest.fixture(scope="module")
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened


def rows_read(rec: Recommender, state: UserState, k: int) -> int:
    """Return how many rows were scored whole; all where the bounds do not pay."""
    catalogue, read = rec._catalogue, 0

    def score(at: np.ndarray) -> np.ndarray:
        nonlocal read
        read += len(at)
        return catalogue._score_stored(state, at)

    assert catalogue.prefix_bound is not None
    return read if catalogue.prefix_bound.search(state, k, state.seen, score) else ITEMS


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), length=st.integers(0, 60), k=st.sampled_from([1, 10, 137, 1000]))
def test_the_best_are_those_of_a_full_scan(
    rec: Recommender, seed: int, length: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    state = rec.user_state(rec.rows([f"SKU{row:08d}" for row in rng.integers(0, ITEMS, length)]))
    found = rec.recommend(state, k)
    wanted, scores = full_scan(rec, state, k)
    assert [int(item.removeprefix("SKU")) for item in found.items] == wanted
    assert found.scores.tolist() == scores


def test_few_rows_are_read(rec: Recommender) -> None:
    rng = np.random.default_rng(0)
    read = []
    for _ in range(20):
        state = rec.user_state(rec.rows([f"SKU{row:08d}" for row in rng.integers(0, ITEMS, 30)]))
        read.append(rows_read(rec, state, 10))
    assert np.median(read) < ITEMS / 20


UNUSUAL: dict[str, Callable[[np.random.Generator], float]] = {
    "nothing": lambda rng: 0.0,
    "at the limit": lambda rng: 1e6,
    "any": lambda rng: float(rng.uniform(10, 2000)),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_users_unlike_those_it_was_fitted_to_get_the_same_answers(
    rec: Recommender, kind: str
) -> None:
    rng = np.random.default_rng(1)
    plain = rec.user_state(["SKU00000005", "SKU00000099"])
    for _ in range(20):
        size = UNUSUAL[kind](rng)
        deep, interest = (
            np.clip(np.rint(rng.normal(0, size, n)), -2000, 2000).astype(np.float32)
            for n in (56, 8)
        )
        state = UserState(
            deep, interest, plain.deep_scale, plain.interest_scale, plain.wide, plain.seen
        )
        found = rec._catalogue.best(state, 25, state.seen)
        assert (found[0].tolist(), found[1].tolist()) == full_scan(rec, state, 25)


def test_lifted_items_are_looked_at(rec: Recommender) -> None:
    state = rec.user_state(["SKU00000005"])
    lowest = int(np.argmin(rec._catalogue.score_all(state)))
    columns, weights = np.array([lowest, 7], np.int32), np.array([50.0, -50.0])
    state.wide = type(state.wide)(columns, weights)
    assert rec._catalogue.best(state, 3, state.seen)[0][0] == lowest
    assert rec._catalogue.best(state, 3, state.seen)[0].tolist() == full_scan(rec, state, 3)[0]


@pytest.mark.parametrize("size", [300.0, 5e4, 1e6, 1e12])
@pytest.mark.parametrize("entries", [0, 1, 2000])
def test_lifts_of_any_size_keep_the_order(rec: Recommender, size: float, entries: int) -> None:
    plain = rec.user_state(["SKU00000005", "SKU00000099"])
    deep = np.zeros_like(plain.deep)
    deep[0] = entries
    columns = np.random.default_rng(int(size)).choice(ITEMS, 30, replace=False).astype(np.int32)
    wide = SparseSum(columns, size * np.linspace(-1, 2, 30))
    state = replace(plain, deep=deep, interest=np.zeros_like(plain.interest), wide=wide)
    found = rec._catalogue.best(state, 10, state.seen)
    assert (found[0].tolist(), found[1].tolist()) == full_scan(rec, state, 10)


@pytest.mark.parametrize("tables", ["float32", "int4"])
def test_other_tables_have_heads_too(tmp_path: Path, tables: str) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=56, interest=8, wide=6, tables=tables))
    with Recommender.open(tmp_path / "b", verify="full") as rec:
        state = rec.user_state(["SKU00000005", "SKU00000099"])
        assert rows_read(rec, state, 10) < ITEMS
        found = rec._catalogue.best(state, 10, state.seen)
        wanted, scores = full_scan(rec, state, 10)
        assert found[0].tolist() == wanted
        np.testing.assert_allclose(
            found[1], scores, rtol=1e-5, atol=1e-6
        )  # float32 rows: BLAS may sum another way


def test_heads_are_left_out_where_they_do_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items, users = rng.normal(0, 1, (3000, 40)), rng.normal(0, 1, (64, 40))
    bias = np.zeros(3000, np.float32)
    assert fit_prefix_bound(lambda start, end: items[start:end], bias, users) == {}  # few items
    monkeypatch.setattr(head_fit, "PREFIX_MIN_CANDIDATES", 1000)
    assert (
        fit_prefix_bound(lambda start, end: items[start:end], bias, users) == {}
    )  # no axis says more than another
    items[:, 3:] *= 0.01
    assert fit_prefix_bound(lambda start, end: items[start:end], bias, users)[
        "head_columns"
    ].shape == (8, 3072)


def test_heads_of_another_width_are_refused(path: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=56, interest=8, wide=6))
    columns = np.load(tmp_path / "b" / "head_columns.npy")
    np.save(tmp_path / "b" / "head_columns.npy", columns[1:])
    with pytest.raises(BundleError, match=r"head_columns\.npy is not as wide as head_step\.npy"):
        Recommender.open(tmp_path / "b", verify="none")


def test_added_items_stand_beside_those_with_heads(rec: Recommender) -> None:
    catalogue = rec._catalogue
    state = rec.user_state(["SKU00000005", "SKU00000099"])
    rows, scale = catalogue.candidate_rows.base, catalogue.scale.base
    near = np.zeros((2, 0), np.int32)
    added = AddedItems(
        {"best": ITEMS, "worst": ITEMS + 1},
        ("best", "worst"),
        catalogue.history_rows.base[:2],
        catalogue.history_scale.base[:2],
        rows[5:7],
        scale[5:7],
        np.array([99, -99], np.float32),
        near,
        near.astype(np.float32),
    )
    more = catalogue.with_added(added)
    at, scores = more.best(state, 10, state.seen)
    everything = more.score_all(state)
    everything[state.seen] = -np.inf
    wanted = top_k(everything, 10)
    assert at.tolist() == wanted.tolist()
    assert at[0] == ITEMS
    assert scores.tolist() == everything[wanted].tolist()
    assert ITEMS not in more.best(state, 10, np.append(state.seen, ITEMS).astype(np.int32))[0]


def answers(rec: Recommender, seed: int) -> list[tuple[tuple[str, ...], list[float]]]:
    rng = np.random.default_rng(seed)
    rows = [rec.rows([f"SKU{row:08d}" for row in rng.integers(0, ITEMS, 30)]) for _ in range(20)]
    return [
        (found.items, found.scores.tolist())
        for found in (rec.recommend(history) for history in rows)
    ]


def test_threads_that_search_at_once_get_their_own_answers(path: Path) -> None:
    with Recommender.open(path) as rec:
        alone = [answers(rec, seed) for seed in range(8)]
    with Recommender.open(path, cache=0) as rec, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda seed: answers(rec, seed), range(8))) == alone
        assert rec.memory()["heads"] > 8 * ITEMS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_of_a_fork_searches_too(rec: Recommender) -> None:
    wanted = answers(rec, 3)
    child = os.fork()
    if child == 0:
        os._exit(0 if answers(rec, 3) == wanted else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_machine_whose_whole_numbers_saturate_scans_all_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recommender.open(path) as rec:
        wanted = answers(rec, 1)
    monkeypatch.setattr(scan, "ZERO_POINT", 127)  # what a sum that is off by a little looks like
    with Recommender.open(path) as rec:
        assert rec._catalogue.prefix_bound is not None
        assert (
            rec._catalogue.prefix_bound.scan(
                np.ones(rec._catalogue.prefix_bound.scan._columns.shape[0], np.int8)
            )
            is None
        )
        assert answers(rec, 1) == wanted


def test_a_graph_of_other_heads_is_refused(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "b")
    (tmp_path / "b" / "head_scan.onnx").write_bytes(scan_graph(8, 128))
    with Recommender.open(tmp_path / "b", verify="none") as rec:
        assert rec.score(["SKU00000005"], ["SKU00000009"]).shape == (1,)
        with pytest.raises(BundleError, match=r"head_scan\.onnx does not load"):
            rec.recommend(["SKU00000005"])
    graph = onnx.load(path / "head_scan.onnx", load_external_data=False)
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "ask"
    (tmp_path / "b" / "head_scan.onnx").write_bytes(graph.SerializeToString())
    with (
        Recommender.open(tmp_path / "b", verify="none") as rec,
        pytest.raises(BundleError, match=r"head_scan\.onnx does not run"),
    ):
        rec.recommend(["SKU00000005"])
    with pytest.raises(BundleError, match=r"head_scan\.onnx"):
        Recommender.open(tmp_path / "b", verify="full")
