"""The benchmark of product quantization: its exact search equals a full scan."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.paths import BENCHMARKS
from helpers.scripts import load_script
from tlrec_edge import Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.item_vectors import item_vectors
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.topk import top_k
from tlrec_edge.search.user_state import UserState

FOLDER = BENCHMARKS / "product_quantization"
ITEMS, K = 3000, 10


@pytest.fixture(scope="module")
def pq() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "pq.py"))


@pytest.fixture(scope="module", params=["int8", "int4"])
def rec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    path = tmp_path_factory.mktemp("pq") / "bundle"
    synthesize(
        path, SynthConfig(ITEMS, dim=24, interest=5, wide=6, history_only=40, tables=request.param)
    )
    return Recommender.open(path, cache=0)


def states_of(rec: Recommender, count: int, seed: int) -> list[UserState]:
    rng = np.random.default_rng(seed)
    return [
        rec.user_state(ItemRows(rng.integers(0, ITEMS + 40, rng.integers(1, 60))))
        for _ in range(count)
    ]


def codes_of(pq: dict[str, Any], rec: Recommender, subspaces: int = 6) -> Any:
    bundle = Bundle.open(rec._open().bundle.path)
    read = item_vectors(
        bundle.shape.candidate_format,
        bundle.array("candidate_rows"),
        bundle.array("candidate_scale"),
    )
    users = np.stack([pq["user_vector"](state) for state in states_of(rec, 60, 1)])
    return pq["fit"](read, bundle.array("candidate_bias"), users, subspaces)


def full_scan(rec: Recommender, state: UserState) -> np.ndarray:
    return rec.score(state, ItemRows(np.arange(ITEMS)))


def test_the_answer_is_that_of_a_full_scan_and_few_rows_are_read(
    pq: dict[str, Any], rec: Recommender
) -> None:
    codes, read = codes_of(pq, rec), []
    for state in [*states_of(rec, 40, 2), rec.user_state(["nobody", "knows"])]:
        found, scores = pq["exact_top"](codes, rec, state, K), full_scan(rec, state)
        best = top_k(scores, K)
        assert found.places.tolist() == best.tolist()
        assert found.scores.tolist() == scores[best].tolist()
        read.append(found.full)
    assert np.median(read) < ITEMS / 10


def test_no_score_exceeds_its_bound_nor_is_further_off_than_said(
    pq: dict[str, Any], rec: Recommender
) -> None:
    codes = codes_of(pq, rec)
    for state in states_of(rec, 10, 3):
        scores = full_scan(rec, state)
        if len(state.wide):
            columns, lifts = state.wide.summed
            scores[columns] -= lifts
        user = pq["user_vector"](state)
        (upper, slack), (estimate, _) = (codes.tables(user, bounds) for bounds in (True, False))
        margin = codes.scan(upper) - codes.scan(estimate)  # |x| |r|
        off = scores - codes.scan(estimate)
        slack += 1e-5  # the lifts taken off again are rounded
        assert (np.abs(off) <= margin + slack).all()
        assert np.abs(off).mean() > np.median(margin) / 50  # the bound is not vacuous


def test_a_bound_that_is_too_small_is_found_out(pq: dict[str, Any], rec: Recommender) -> None:
    codes = codes_of(pq, rec, 2)
    wrong = codes._replace(step=0.02 * codes.step)
    states = states_of(rec, 40, 4)
    assert any(
        pq["exact_top"](wrong, rec, state, K).places.tolist()
        != top_k(full_scan(rec, state), K).tolist()
        for state in states
    )


def test_more_bytes_and_more_whole_rows_find_more(pq: dict[str, Any], rec: Recommender) -> None:
    states = states_of(rec, 30, 5)

    def recall(codes: Any, full: int) -> float:
        found = [pq["likely_top"](codes, rec, state, K, full).places for state in states]
        best = [top_k(full_scan(rec, state), K) for state in states]
        return float(np.mean([np.isin(f, b).mean() for f, b in zip(found, best, strict=True)]))

    few, many = codes_of(pq, rec, 2), codes_of(pq, rec, 12)
    assert (few.bytes_an_item, many.bytes_an_item) == (4, 14)
    assert recall(few, K) < recall(few, 50)
    assert recall(few, K) < recall(many, K)
    assert recall(many, 50) > 0.97
    with pytest.raises(ValueError, match="subspaces go in pairs"):
        codes_of(pq, rec, 5)


@pytest.fixture
def table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], str]:
    """Return a function that compares all ways in a bundle, timing each twice."""
    monkeypatch.syspath_prepend(str(FOLDER))
    compare = load_script(FOLDER / "compare.py")
    monkeypatch.setattr(compare, "ROUNDS", 2)

    def show(path: Path) -> str:
        monkeypatch.setattr(sys, "argv", ["compare.py", str(path)])
        compare.main()
        return capsys.readouterr().out

    return show


def test_the_table_names_every_way(table: Callable[[Path], str], tmp_path: Path) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=24, interest=5, wide=6))
    shown = table(tmp_path / "b")
    exact = [line for line in shown.splitlines() if ", exact" in line or "all rows" in line]
    assert len(exact) == 3
    assert all("1, bit for bit" in line for line in exact)
    for way in (
        "codes of 16 bytes, best 50",
        "codes of 8 bytes, alone",
        "scan alone of 16 bytes, onnxruntime",
    ):
        assert f"│ {way} " in shown
    synthesize(tmp_path / "large", SynthConfig(20_000, dim=24, interest=5, wide=6, lists_beyond=0))
    shown = table(tmp_path / "large")
    assert "│ heads of " in shown
    assert "│ lists, " in shown


def test_float_tables_are_refused(
    table: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthesize(tmp_path / "float", SynthConfig(60, dim=8, interest=0, wide=0, tables="float32"))
    with pytest.raises(SystemExit) as refused:
        table(tmp_path / "float")
    assert refused.value.code == 2
    assert "has float32 tables" in capsys.readouterr().err
