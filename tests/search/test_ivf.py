"""Lists: what the likeliest hold is found, with faiss or without, and scored as by a full scan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scans import ITEMS, full_scan
from tlrec_edge import BundleError, Recommender, lists
from tlrec_edge.cli import main
from tlrec_edge.errors import MissingExtraError
from tlrec_edge.runs import Runs
from tlrec_edge.synth import SynthConfig, synthesize


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    path = tmp_path_factory.mktemp("listed") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=56, interest=8, wide=6, lists_beyond=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "PART", 0.5)  # so few candidates stand in few lists
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
        state = listed.user_state(listed.rows([f"SKU{row:08d}" for row in rng.integers(0, ITEMS, 30)]))
        for k, shares in kept.items():
            every, some = listed.recommend(state, k, exact=True), listed.recommend(state, k)
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
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=14, interest=4, wide=0, popularity=0.02, lists_beyond=0))
    with Recommender.open(tmp_path / "b") as rec:
        for k in (1, 10, 100):
            assert rec.recommend([], k).items == rec.recommend([], k, exact=True).items


def test_a_long_answer_is_exact(listed: Recommender) -> None:
    state = listed.user_state(["SKU00000005", "SKU00000099"])
    assert list(listed.recommend(state, 101).items) == ids(listed, full_scan(listed, state, 101)[0])


def test_what_is_excluded_is_made_up_for(listed: Recommender) -> None:
    state = listed.user_state(["SKU00000005", "SKU00000247", "SKU00000364"])
    best, shown = listed.recommend(state, 1000, exact=True), 0
    for page in range(10):
        seen = list(best.items[:shown])
        some, every = (listed.recommend(state, 50, exclude=seen, exact=exact) for exact in (False, True))
        assert len(some.items) == 50
        assert len({*some.items} & {*every.items}) >= 45, page
        shown += 100
    assert len(listed.recommend(state, 10, exclude=[f"SKU{row:08d}" for row in range(ITEMS - 7)]).items) == 7


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
    "index", [None, "x", [1], {}, *({"probes@10": bad, "probes@100": 9} for bad in (0, True, "3", 1.5, 2**63, 10**400))]
)
def test_lists_without_a_number_to_look_into_are_refused(listed: Recommender, tmp_path: Path, index: object) -> None:
    copy = tmp_path / "silent"
    shutil.copytree(listed._bundle.path, copy)
    (copy / "manifest.json").write_text(json.dumps({**listed.manifest, "index": index}), "utf-8")
    with pytest.raises(BundleError, match="does not say how many lists to look into"):
        Recommender.open(copy)


def test_faiss_is_not_given_lists_out_of_order(listed: Recommender, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    copy = tmp_path / "empty"
    shutil.copytree(listed._bundle.path, copy)
    starts = np.load(copy / "list_starts.npy")
    starts[2] = starts[1]
    np.save(copy / "list_starts.npy", starts)
    with pytest.raises(BundleError, match=r"list_starts\.npy is not in rising order"):
        Recommender.open(copy, speed=True)


@pytest.fixture(scope="module", params=["int8", "int4", "float32"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Recommender]]:
    pytest.importorskip("faiss")
    path = tmp_path_factory.mktemp("speed") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=30, interest=10, wide=6, lists_beyond=0, tables=request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "PART", 0.5)
        with Recommender.open(path) as slow, Recommender.open(path, speed=True) as fast:
            yield [slow, fast]


def test_lists_that_do_not_pay_are_left_to_the_heads(tmp_path: Path) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=56, interest=8, wide=6, popularity=0.02, lists_beyond=0))
    with Recommender.open(tmp_path / "b") as rec:
        index = rec.manifest["index"]
        assert index["probes@10"] > index["lists"] / 16
        for history in (["SKU00000005"], ["SKU00000247", "SKU00000364", "SKU00019999"]):
            found, exact = rec.recommend(history), rec.recommend(history, exact=True)
            assert found.items == exact.items
            assert found.scores.tobytes() == exact.scores.tobytes()


@settings(max_examples=60)
@given(
    history=st.lists(st.integers(0, ITEMS - 1), max_size=60),
    k=st.sampled_from([1, 10, 37, 100, 101]),
    exclude=st.none() | st.just("history") | st.lists(st.integers(0, ITEMS - 1), max_size=3000, unique=True),
)
def test_faiss_gives_the_same_answers(
    both: list[Recommender], history: list[int], k: int, exclude: str | list[int] | None
) -> None:
    out = [f"SKU{row:08d}" for row in exclude] if isinstance(exclude, list) else exclude
    slow, fast = (rec.recommend([f"SKU{row:08d}" for row in history], k, exclude=out) for rec in both)
    if both[0].exact:
        assert fast.items == slow.items
        assert fast.scores.tobytes() == slow.scores.tobytes()
    else:  # float32 tables: the last bits depend on who else is scored
        assert np.allclose(fast.scores, slow.scores, rtol=1e-5, atol=1e-6)


def test_what_faiss_cannot_settle_is_read_without_it(both: list[Recommender], monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = both
    history = ["SKU00000005", "SKU00000247", "SKU00000364"]
    monkeypatch.setattr(fast._catalogue.lists, "_off", np.full_like(fast._catalogue.lists._off, 1e6))  # type: ignore[union-attr]
    assert fast.recommend(history).items == slow.recommend(history).items


@pytest.mark.parametrize("tables", ["int8", "float32"])
def test_faiss_gives_the_same_answers_among_equals(tmp_path: Path, tables: str) -> None:
    pytest.importorskip("faiss")
    config = SynthConfig(ITEMS, dim=14, interest=4, wide=0, popularity=0.0, lists_beyond=0, tables=tables)
    synthesize(tmp_path / "b", config)  # a user without a history: every list and every item scores 0
    with Recommender.open(tmp_path / "b") as slow, Recommender.open(tmp_path / "b", speed=True) as fast:
        assert fast.recommend([]).items == slow.recommend([]).items


def test_faiss_is_safe_from_many_threads(both: list[Recommender]) -> None:
    slow, fast = both
    histories = [[f"SKU{row:08d}" for row in range(first, 9000, 701)] for first in range(64)]
    wanted = [slow.recommend(history, 1 + at).items for at, history in enumerate(histories)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: fast.recommend(histories[at], 1 + at).items, range(64)))
    assert found == wanted


FORKING = """
import os, sys
from tlrec_edge import Recommender

def answer():
    with Recommender.open(sys.argv[1], speed=True) as rec:
        return rec.recommend(["SKU00000005"]).items

first = answer()
child = os.fork()
if not child:
    os._exit(answer() != first)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_opens_with_faiss(both: list[Recommender]) -> None:
    command = [sys.executable, "-c", FORKING, str(both[0]._bundle.path)]
    subprocess.run(command, check=True, timeout=30, env=os.environ | {"OMP_NUM_THREADS": "4"})


def test_the_copy_for_faiss_is_told(both: list[Recommender]) -> None:
    slow, fast = both
    assert slow.memory()["lists"] == 0
    assert fast.memory()["lists"] >= 41 * ITEMS


def test_without_faiss_speed_says_what_to_install(
    listed: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    path = listed._bundle.path
    with pytest.raises(MissingExtraError, match=r"pip install 'tlrec-edge\[speed\]'"):
        Recommender.open(path, speed=True)
    found = CliRunner().invoke(main, ["recommend", str(path), "--history", "SKU00000005", "--speed"])
    assert found.exit_code == 1
    assert "[speed]" in found.output
    synthesize(tmp_path / "small", SynthConfig(500, dim=8, interest=0))
    with Recommender.open(tmp_path / "small", speed=True) as rec:  # no lists, nothing to speed up
        assert len(rec.recommend(["SKU00000005"]).items) == 10


def test_speed_goes_through_the_command_line(listed: Recommender) -> None:
    pytest.importorskip("faiss")
    path, run = str(listed._bundle.path), CliRunner().invoke
    asked = ["recommend", path, "--history", "SKU00000005,SKU00000247", "--json"]
    assert run(main, [*asked, "--speed"]).output == run(main, asked).output
    timed = ["bench", path, "--scenario", "top-k", "--seconds", "0.05", "--min-queries", "5", "--json", "--speed"]
    found = run(main, timed)
    assert found.exit_code == 0, found.output
    assert '"speed": true' in found.output
    compared = run(main, ["bench", "--compare", path, path, "--seconds", "0.05", "--speed", "--json"])
    assert "does not read" not in compared.output
    assert compared.exit_code != 2
    refused = run(main, ["bench", path, "--sut", "a:b", "--speed"])
    assert refused.exit_code == 2
    assert "--speed is of bundles" in refused.output


@given(st.lists(st.integers(1, 5), min_size=2, max_size=20), st.data())
def test_runs_are_slices_of_a_table(lengths: list[int], data: st.DataObject) -> None:
    ends = np.cumsum(lengths)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))))
    runs = Runs((ends - lengths).take(chosen), ends.take(chosen))
    table = np.arange(ends[-1], dtype=np.int8)
    rows = np.concatenate([np.arange(ends[at] - lengths[at], ends[at]) for at in chosen])
    assert len(runs) == len(rows)
    assert runs.of(table).tolist() == rows.tolist()
    assert runs.of(table, np.float32).dtype == np.float32
    assert runs.rows(np.arange(len(rows))).tolist() == rows.tolist()
    named = np.array(sorted(data.draw(st.sets(st.integers(0, int(ends[-1]) - 1)))), np.intp)
    dense = np.zeros(ends[-1], np.float32)
    dense[named] = named + 1
    assert runs.dense(named, (named + 1).astype(np.float32)).tolist() == dense[rows].tolist()
