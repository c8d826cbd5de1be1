"""The inverted file: a search of few clusters finds nearly all of the best candidates."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.bundles import edit_manifest
from helpers.scans import IDS, ITEMS, full_scan, random_state
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.core.sparse import SparseSum
from tlrec_edge.search import ivf


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ivf") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=56, interest=8, wide=6, lists_beyond=0))
    return path


@pytest.fixture(scope="module")
def rec(path: Path) -> Iterator[Recommender]:
    with pytest.MonkeyPatch.context() as patch:
        # So few candidates have few clusters, of which a search probes a large share.
        patch.setattr(ivf, "MAX_PROBED_FRACTION", 0.5)
        with Recommender.open(path, verify="full") as opened:
            yield opened


def test_the_recall_is_that_of_the_manifest(rec: Recommender) -> None:
    card = rec.manifest["index"]
    assert card["recall@10"] >= 0.99
    assert card["recall@100"] >= 0.97
    assert 0 < card["probes@10"] <= card["probes@100"] < card["lists"] / 2
    rng = np.random.default_rng(7)
    recall: dict[int, list[float]] = {10: [], 100: []}
    for _ in range(30):
        state = random_state(rec, rng)
        for k, values in recall.items():
            every, probed = rec.recommend(state, k, exhaustive=True), rec.recommend(state, k)
            assert list(every.items) == full_scan(rec, state, k)[0]
            assert probed.scores.tolist() == rec.score(state, list(probed.items)).tolist()
            values.append(len({*every.items} & {*probed.items}) / k)
    assert np.mean(recall[10]) > 0.97
    assert np.mean(recall[100]) > 0.95


def test_an_item_with_a_contribution_is_found_in_any_cluster(rec: Recommender) -> None:
    state = rec.user_state([IDS[5]])
    lowest = IDS[int(np.argmin(rec.score(state, IDS)))]
    row = rec.rows([lowest])[0]
    state.wide = SparseSum(np.array([row], np.int32), np.array([50.0]))
    assert rec.recommend(state, 3).items[0] == lowest
    assert lowest not in rec.recommend(state, 3, exclude=[lowest]).items


def test_an_unknown_user_gets_the_most_popular_items(tmp_path: Path) -> None:
    config = SynthConfig(ITEMS, dim=14, interest=4, wide=0, popularity=0.02, lists_beyond=0)
    synthesize(tmp_path / "b", config)
    with Recommender.open(tmp_path / "b") as rec:
        for k in (1, 10, 100):
            assert rec.recommend([], k).items == rec.recommend([], k, exhaustive=True).items


def test_a_long_answer_is_exact(rec: Recommender) -> None:
    state = rec.user_state([IDS[5], IDS[99]])
    assert list(rec.recommend(state, 101).items) == full_scan(rec, state, 101)[0]


def test_more_clusters_are_probed_if_items_are_excluded(rec: Recommender) -> None:
    state = rec.user_state([IDS[5], IDS[247], IDS[364]])
    best = rec.recommend(state, 1000, exhaustive=True).items
    for page in range(10):
        seen = list(best[: 100 * page])
        probed = rec.recommend(state, 50, exclude=seen)
        every = rec.recommend(state, 50, exclude=seen, exhaustive=True)
        assert len(probed.items) == 50
        assert len({*probed.items} & {*every.items}) >= 45, page
    assert len(rec.recommend(state, 10, exclude=IDS[: ITEMS - 7]).items) == 7


def test_the_order_of_storage_changes_no_score(rec: Recommender, tmp_path: Path) -> None:
    history = [IDS[5], IDS[99], IDS[19_999]]
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=56, interest=8, wide=6))
    with Recommender.open(tmp_path / "b") as plain:
        assert rec.rows(IDS) != plain.rows(IDS)
        assert rec.score(history, IDS).tolist() == plain.score(history, IDS).tolist()


DAMAGE: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "cut": ("list_starts", lambda array: array[:-1]),
    "narrow": ("list_centres", lambda array: array[:, 1:]),
    "an empty cluster": ("list_starts", lambda array: np.append(array[:2], array[1:-1])),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_clusters_are_refused(path: Path, tmp_path: Path, case: str) -> None:
    name, change = DAMAGE[case]
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    changed = change(np.load(copy / f"{name}.npy"))
    if case == "an empty cluster":
        changed[-1] = ITEMS
    np.save(copy / f"{name}.npy", changed)
    with pytest.raises(BundleError, match=r"list_\w+\.npy"):
        Recommender.open(copy, verify="none")


INVALID_PROBES = (0, True, "3", 1.5, 2**63, 10**400)


@pytest.mark.parametrize(
    "index", [None, "x", [1], {}, *({"probes@10": n, "probes@100": 9} for n in INVALID_PROBES)]
)
def test_a_manifest_without_probes_is_refused(path: Path, tmp_path: Path, index: object) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    edit_manifest(copy, lambda manifest: manifest.update(index=index))
    with pytest.raises(BundleError, match="has no valid number of clusters to probe"):
        Recommender.open(copy)


def test_the_prefix_bound_answers_if_too_many_clusters_were_probed(tmp_path: Path) -> None:
    config = SynthConfig(ITEMS, dim=56, interest=8, wide=6, popularity=0.02, lists_beyond=0)
    synthesize(tmp_path / "b", config)
    with Recommender.open(tmp_path / "b") as rec:
        index = rec.manifest["index"]
        assert index["probes@10"] > index["lists"] / 16
        for history in ([IDS[5]], [IDS[247], IDS[364], IDS[19_999]]):
            default, exhaustive = rec.recommend(history), rec.recommend(history, exhaustive=True)
            assert default.items == exhaustive.items
            assert default.scores.tobytes() == exhaustive.scores.tobytes()


@pytest.mark.parametrize("tables", ["int8", "int4", "float32"])
def test_every_storage_format_keeps_recall_and_scores(
    tmp_path: Path, tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ivf, "MAX_PROBED_FRACTION", 0.5)
    config = SynthConfig(ITEMS, dim=30, interest=10, wide=6, lists_beyond=0, tables=tables)
    synthesize(tmp_path / "b", config)
    with Recommender.open(tmp_path / "b") as rec:
        recall = []
        for first in range(20):
            state = rec.user_state([IDS[row] for row in range(first, 9000, 701)])
            probed, every = rec.recommend(state), rec.recommend(state, exhaustive=True)
            error = np.abs(probed.scores - rec.score(state, list(probed.items))).max()
            # The last bits of float32 sums depend on the rest of the batch.
            assert error <= (0 if rec.deterministic else 1e-5)
            recall.append(len({*probed.items} & {*every.items}) / 10)
    assert np.mean(recall) > 0.97


@given(st.lists(st.integers(1, 5), min_size=2, max_size=20), st.data())
def test_row_ranges_are_slices_of_a_table(lengths: list[int], data: st.DataObject) -> None:
    ends = np.cumsum(lengths, dtype=np.intp)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))))
    ranges = RowRanges((ends - lengths).take(chosen), ends.take(chosen))
    table = np.arange(ends[-1], dtype=np.int8)
    rows = np.concatenate([np.arange(ends[at] - lengths[at], ends[at]) for at in chosen])
    assert len(ranges) == len(rows)
    assert ranges.take_from(table).tolist() == rows.tolist()
    assert ranges.take_from(table, np.float32).dtype == np.float32
    assert ranges.to_rows(np.arange(len(rows))).tolist() == rows.tolist()
    sparse = np.array(sorted(data.draw(st.sets(st.integers(0, int(ends[-1]) - 1)))), np.intp)
    dense = np.zeros(ends[-1], np.float32)
    dense[sparse] = sparse + 1
    assert ranges.dense(sparse, (sparse + 1).astype(np.float32)).tolist() == dense[rows].tolist()
