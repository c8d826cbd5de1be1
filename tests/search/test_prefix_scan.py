"""The prefix bound: a top-k that scores few rows equals that of a full scan, bit for bit."""

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

from helpers.scans import IDS, ITEMS, found, full_scan, random_ids, random_state
from tlrec_edge import BundleError, ItemRows, Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.core.sparse import SparseSum
from tlrec_edge.core.topk import top_k
from tlrec_edge.runtime.added_items import AddedItems
from tlrec_edge.runtime.catalogue import Catalogue
from tlrec_edge.search import fit_prefix_bound as fitting
from tlrec_edge.search import prefix_scan
from tlrec_edge.search.fit_prefix_bound import fit_prefix_bound
from tlrec_edge.search.prefix_bound import PrefixBound
from tlrec_edge.search.prefix_scan import scan_graph
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prefix") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=56, interest=8, wide=6))
    return path


@pytest.fixture(scope="module")
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened


def rows_scored(path: Path, rec: Recommender, state: UserState) -> int:
    """Return how many rows a top-10 scores in full; all if the bound gives no answer."""
    count = 0

    def score(positions: Indices | RowRanges) -> Floats:
        nonlocal count
        assert isinstance(positions, np.ndarray)
        count += len(positions)
        return rec.score(state, ItemRows(positions))

    bound = PrefixBound(Bundle.open(path))
    return count if bound.search(state, 10, state.seen, score) else ITEMS


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), length=st.integers(0, 60), k=st.sampled_from([1, 10, 137, 1000]))
def test_the_best_are_those_of_a_full_scan(
    rec: Recommender, seed: int, length: int, k: int
) -> None:
    state = random_state(rec, np.random.default_rng(seed), length)
    assert found(rec, state, k) == full_scan(rec, state, k)


def test_few_rows_are_scored(path: Path, rec: Recommender) -> None:
    rng = np.random.default_rng(0)
    counts = [rows_scored(path, rec, random_state(rec, rng)) for _ in range(20)]
    assert np.median(counts) < ITEMS / 20


UNUSUAL: dict[str, Callable[[np.random.Generator], float]] = {
    "zero": lambda rng: 0.0,
    "at the limit": lambda rng: 1e6,
    "any": lambda rng: float(rng.uniform(10, 2000)),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_users_unlike_those_of_the_fit_get_the_same_answers(rec: Recommender, kind: str) -> None:
    rng = np.random.default_rng(1)
    plain = rec.user_state([IDS[5], IDS[99]])
    for _ in range(20):
        size = UNUSUAL[kind](rng)
        deep, interest = (
            np.clip(np.rint(rng.normal(0, size, n)), -2000, 2000).astype(np.float32)
            for n in (56, 8)
        )
        state = replace(plain, deep=deep, interest=interest)
        assert found(rec, state, 25) == full_scan(rec, state, 25)


def test_an_item_with_a_contribution_is_scored(rec: Recommender) -> None:
    state = rec.user_state([IDS[5]])
    lowest = int(np.argmin(rec.score(state, IDS)))
    state.wide = SparseSum(np.array([lowest, 7], np.int32), np.array([50.0, -50.0]))
    assert rec.recommend(state, 3).items[0] == IDS[lowest]
    assert found(rec, state, 3) == full_scan(rec, state, 3)


@pytest.mark.parametrize("size", [300.0, 5e4, 1e6, 1e12])
@pytest.mark.parametrize("entries", [0, 1, 2000])
def test_contributions_of_any_size_keep_the_order(
    rec: Recommender, size: float, entries: int
) -> None:
    plain = rec.user_state([IDS[5], IDS[99]])
    deep = np.zeros_like(plain.deep)
    deep[0] = entries
    columns = np.random.default_rng(int(size)).choice(ITEMS, 30, replace=False).astype(np.int32)
    wide = SparseSum(columns, size * np.linspace(-1, 2, 30))
    state = replace(plain, deep=deep, interest=np.zeros_like(plain.interest), wide=wide)
    assert found(rec, state, 10) == full_scan(rec, state, 10)


@pytest.mark.parametrize("tables", ["float32", "int4"])
def test_other_storage_formats_have_a_prefix_bound_too(tmp_path: Path, tables: str) -> None:
    path = tmp_path / "b"
    synthesize(path, SynthConfig(ITEMS, dim=56, interest=8, wide=6, tables=tables))
    with Recommender.open(path, verify="full") as rec:
        state = rec.user_state([IDS[5], IDS[99]])
        assert rows_scored(path, rec, state) < ITEMS
        items, scores = found(rec, state, 10)
        expected, expected_scores = full_scan(rec, state, 10)
        assert items == expected
        # The last bits of float32 sums depend on the rest of the batch.
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)


def test_no_prefixes_are_written_if_a_full_scan_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items, users = rng.normal(0, 1, (3000, 40)), rng.normal(0, 1, (64, 40))

    def fit() -> dict[str, np.ndarray]:
        bias = np.zeros(len(items), np.float32)
        return fit_prefix_bound(lambda start, end: items[start:end], bias, users)

    assert fit() == {}, "few items"
    monkeypatch.setattr(fitting, "PREFIX_MIN_CANDIDATES", 1000)
    assert fit() == {}, "no axis explains more than another"
    items[:, 3:] *= 0.01
    assert fit()["head_columns"].shape == (8, 3072)


def test_prefixes_of_another_width_are_refused(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "b")
    columns = np.load(tmp_path / "b" / "head_columns.npy")
    np.save(tmp_path / "b" / "head_columns.npy", columns[1:])
    with pytest.raises(BundleError, match=r"head_columns\.npy is not as wide as head_step\.npy"):
        Recommender.open(tmp_path / "b", verify="none")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, for products of infinity and 0
@pytest.mark.parametrize("name", ["head_turn", "head_mean", "head_step", "head_reach"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bound_that_is_not_finite_prunes_nothing(
    rec: Recommender, path: Path, tmp_path: Path, name: str, value: float
) -> None:
    shutil.copytree(path, tmp_path / "b")
    array = np.load(tmp_path / "b" / f"{name}.npy")
    array.flat[0] = value
    np.save(tmp_path / "b" / f"{name}.npy", array)
    expected = found(rec, rec.user_state([IDS[5], IDS[99]]), 10)
    with Recommender.open(tmp_path / "b", verify="none") as damaged:
        assert found(damaged, damaged.user_state([IDS[5], IDS[99]]), 10) == expected


def test_added_items_are_ranked_with_the_others(rec: Recommender, path: Path) -> None:
    state = rec.user_state([IDS[5], IDS[99]])
    bundle = Bundle.open(path)
    catalogue = Catalogue.open(bundle, threads=1)
    added = AddedItems(
        rows={"best": ITEMS, "worst": ITEMS + 1},
        names=("best", "worst"),
        history_rows=bundle.array("history_rows")[:2],
        history_scale=bundle.array("history_scale")[:2],
        candidate_rows=bundle.array("candidate_rows")[5:7],
        candidate_scale=bundle.array("candidate_scale")[5:7],
        bias=np.array([99, -99], np.float32),
        neighbours=np.zeros((2, 0), np.int32),
        neighbour_weights=np.zeros((2, 0), np.float32),
    )
    scorer = catalogue.with_added(added).scorer
    best = scorer.top_k(state, 10, state.seen)
    scores = scorer.score_all(state)
    scores[state.seen] = -np.inf
    expected = top_k(scores, 10)
    assert best.positions.tolist() == expected.tolist()
    assert best.positions[0] == ITEMS
    assert best.scores.tolist() == scores[expected].tolist()
    excluded = np.append(state.seen, ITEMS)
    assert ITEMS not in scorer.top_k(state, 10, excluded).positions


def answers(rec: Recommender, seed: int) -> list[tuple[tuple[str, ...], list[float]]]:
    rng = np.random.default_rng(seed)
    results = [rec.recommend(rec.rows(random_ids(rng, 30))) for _ in range(20)]
    return [(result.items, result.scores.tolist()) for result in results]


def test_concurrent_searches_do_not_mix(path: Path) -> None:
    with Recommender.open(path) as rec:
        alone = [answers(rec, seed) for seed in range(8)]
    with Recommender.open(path, cache=0) as rec, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda seed: answers(rec, seed), range(8))) == alone
        assert rec.memory()["prefix_bound"] > 8 * ITEMS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_searches_too(rec: Recommender) -> None:
    expected = answers(rec, 3)
    child = os.fork()
    if child == 0:
        os._exit(0 if answers(rec, 3) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_machine_with_saturating_products_scans_all_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recommender.open(path) as rec:
        expected = answers(rec, 1)
    monkeypatch.setattr(prefix_scan, "ZERO_POINT", 127)  # products are then a little wrong
    with Recommender.open(path) as rec:
        assert rows_scored(path, rec, rec.user_state([IDS[5]])) == ITEMS
        assert answers(rec, 1) == expected


def test_a_graph_that_does_not_fit_is_refused(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b"
    shutil.copytree(path, copy)
    (copy / "head_scan.onnx").write_bytes(scan_graph(8, 128))
    with Recommender.open(copy, verify="none") as rec:
        assert rec.score([IDS[5]], [IDS[9]]).shape == (1,)
        with pytest.raises(BundleError, match=r"head_scan\.onnx: .*'heads' is uint8 \(8, 128\)"):
            rec.recommend([IDS[5]])
    graph = onnx.load(path / "head_scan.onnx", load_external_data=False)
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "renamed"
    (copy / "head_scan.onnx").write_bytes(graph.SerializeToString())
    with (
        Recommender.open(copy, verify="none") as rec,
        pytest.raises(BundleError, match=r"head_scan\.onnx: it has the inputs \['renamed'\]"),
    ):
        rec.recommend([IDS[5]])
    with pytest.raises(BundleError, match=r"head_scan\.onnx"):
        Recommender.open(copy, verify="full")
