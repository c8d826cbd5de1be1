"""Lists: what the likeliest hold is found, and scored as by a full scan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.scans import ITEMS, full_scan
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bench.synthetic import SynthConfig, synthesize
from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.search import ivf as lists


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    path = tmp_path_factory.mktemp("listed") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=56, interest=8, wide=6, lists_beyond=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "MAX_PROBED_FRACTION", 0.5)  # so few candidates stand in few lists
        with Recommender.open(path, verify="full") as opened:
            yield opened


def ids(rec: Recommender, positions: list[int]) -> list[str]:
    return rec._catalogue.item_ids(np.array(positions, np.intp))


def test_lists_keep_the_recall_that_the_manifest_states(listed: Recommender) -> None:
    card = listed.manifest["index"]
    assert card["recall@10"] >= 0.99
    assert card["recall@100"] >= 0.97
    assert 0 < card["probes@10"] <= card["probes@100"] < card["lists"] / 2
    rng = np.random.default_rng(7)
    kept: dict[int, list[float]] = {10: [], 100: []}
    for _ in range(30):
        state = listed.user_state(
            listed.rows([f"SKU{row:08d}" for row in rng.integers(0, ITEMS, 30)])
        )
        for k, shares in kept.items():
            every, some = listed.recommend(state, k, exhaustive=True), listed.recommend(state, k)
            assert list(every.items) == ids(listed, full_scan(listed, state, k)[0])
            assert some.scores.tolist() == listed.score(state, list(some.items)).tolist()
            shares.append(len({*every.items} & {*some.items}) / k)
    assert np.mean(kept[10]) > 0.97
    assert np.mean(kept[100]) > 0.95


def test_what_is_lifted_is_found_in_any_list(listed: Recommender) -> None:
    state = listed.user_state(["SKU00000005"])
    lowest = int(np.argmin(listed._catalogue.score_all(state)))
    state.wide = type(state.wide)(np.array([lowest], np.int32), np.array([50.0]))
    name = ids(listed, [lowest])[0]
    assert listed.recommend(state, 3).items[0] == name
    assert name not in listed.recommend(state, 3, exclude=[name]).items


def test_who_is_not_known_gets_what_is_most_popular(tmp_path: Path) -> None:
    synthesize(
        tmp_path / "b",
        SynthConfig(ITEMS, dim=14, interest=4, wide=0, popularity=0.02, lists_beyond=0),
    )
    with Recommender.open(tmp_path / "b") as rec:
        for k in (1, 10, 100):
            assert rec.recommend([], k).items == rec.recommend([], k, exhaustive=True).items


def test_a_long_answer_is_exact(listed: Recommender) -> None:
    state = listed.user_state(["SKU00000005", "SKU00000099"])
    assert list(listed.recommend(state, 101).items) == ids(listed, full_scan(listed, state, 101)[0])


def test_what_is_excluded_is_made_up_for(listed: Recommender) -> None:
    state = listed.user_state(["SKU00000005", "SKU00000247", "SKU00000364"])
    best, shown = listed.recommend(state, 1000, exhaustive=True), 0
    for page in range(10):
        seen = list(best.items[:shown])
        some, every = (
            listed.recommend(state, 50, exclude=seen, exhaustive=exact) for exact in (False, True)
        )
        assert len(some.items) == 50
        assert len({*some.items} & {*every.items}) >= 45, page
        shown += 100
    assert (
        len(
            listed.recommend(state, 10, exclude=[f"SKU{row:08d}" for row in range(ITEMS - 7)]).items
        )
        == 7
    )


def test_list_by_list_every_item_scores_as_before(listed: Recommender, tmp_path: Path) -> None:
    every = [f"SKU{row:08d}" for row in range(ITEMS)]
    history = ["SKU00000005", "SKU00000099", "SKU00019999"]
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=56, interest=8, wide=6))
    with Recommender.open(tmp_path / "b") as rec:
        assert listed.rows(every).values.tolist() != rec.rows(every).values.tolist()
        assert listed.score(history, every).tolist() == rec.score(history, every).tolist()


def test_damaged_lists_are_refused(listed: Recommender, tmp_path: Path) -> None:
    for name, change in {
        "list_starts": lambda array: array[:-1],
        "list_centres": lambda array: array[:, 1:],
    }.items():
        copy = tmp_path / name
        shutil.copytree(listed._bundle.path, copy)
        np.save(copy / f"{name}.npy", change(np.load(copy / f"{name}.npy")))
        with pytest.raises(BundleError, match=r"list_\w+\.npy"):
            Recommender.open(copy, verify="none")


@pytest.mark.parametrize(
    "index",
    [
        None,
        "x",
        [1],
        {},
        *({"probes@10": bad, "probes@100": 9} for bad in (0, True, "3", 1.5, 2**63, 10**400)),
    ],
)
def test_lists_without_a_number_to_look_into_are_refused(
    listed: Recommender, tmp_path: Path, index: object
) -> None:
    copy = tmp_path / "silent"
    shutil.copytree(listed._bundle.path, copy)
    (copy / "manifest.json").write_text(json.dumps({**listed.manifest, "index": index}), "utf-8")
    with pytest.raises(BundleError, match="does not say how many lists to look into"):
        Recommender.open(copy)


def test_lists_that_do_not_pay_are_left_to_the_heads(tmp_path: Path) -> None:
    synthesize(
        tmp_path / "b",
        SynthConfig(ITEMS, dim=56, interest=8, wide=6, popularity=0.02, lists_beyond=0),
    )
    with Recommender.open(tmp_path / "b") as rec:
        index = rec.manifest["index"]
        assert index["probes@10"] > index["lists"] / 16
        for history in (["SKU00000005"], ["SKU00000247", "SKU00000364", "SKU00019999"]):
            found, exact = rec.recommend(history), rec.recommend(history, exhaustive=True)
            assert found.items == exact.items
            assert found.scores.tobytes() == exact.scores.tobytes()


@pytest.mark.parametrize("tables", ["int8", "int4", "float32"])
def test_lists_of_any_storage_find_the_best_and_score_them_as_ever(
    tmp_path: Path, tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MAX_PROBED_FRACTION", 0.5)
    synthesize(
        tmp_path / "b",
        SynthConfig(ITEMS, dim=30, interest=10, wide=6, lists_beyond=0, tables=tables),
    )
    with Recommender.open(tmp_path / "b") as rec:
        shares = []
        for first in range(20):
            state = rec.user_state([f"SKU{row:08d}" for row in range(first, 9000, 701)])
            some, every = rec.recommend(state), rec.recommend(state, exhaustive=True)
            # float32 tables: the last bits depend on who else is scored
            off = np.abs(some.scores - rec.score(state, list(some.items))).max()
            assert off <= (0 if rec.deterministic else 1e-5)
            shares.append(len({*some.items} & {*every.items}) / 10)
    assert np.mean(shares) > 0.97


@given(st.lists(st.integers(1, 5), min_size=2, max_size=20), st.data())
def test_runs_are_slices_of_a_table(lengths: list[int], data: st.DataObject) -> None:
    ends = np.cumsum(lengths)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))))
    runs = RowRanges((ends - lengths).take(chosen), ends.take(chosen))
    table = np.arange(ends[-1], dtype=np.int8)
    rows = np.concatenate([np.arange(ends[at] - lengths[at], ends[at]) for at in chosen])
    assert len(runs) == len(rows)
    assert runs.take_from(table).tolist() == rows.tolist()
    assert runs.take_from(table, np.float32).dtype == np.float32
    assert runs.to_rows(np.arange(len(rows))).tolist() == rows.tolist()
    named = np.array(sorted(data.draw(st.sets(st.integers(0, int(ends[-1]) - 1)))), np.intp)
    dense = np.zeros(ends[-1], np.float32)
    dense[named] = named + 1
    assert runs.dense(named, (named + 1).astype(np.float32)).tolist() == dense[rows].tolist()
