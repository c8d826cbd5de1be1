"""Heads: a top-k that reads few rows is that of a full scan, bit for bit, for every user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlrec_edge import BundleError, Recommender, heads
from tlrec_edge.heads import fit_heads
from tlrec_edge.history import UserState
from tlrec_edge.synth import SynthConfig, synthesize
from tlrec_edge.topk import top_k

ITEMS = 20_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "bundle"
    synthesize(path, SynthConfig(ITEMS, dim=24, interest=8, wide=6))
    return path


@pytest.fixture(scope="module")
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened


def full_scan(rec: Recommender, state: UserState, k: int) -> tuple[list[int], list[float]]:
    scores = rec._catalogue.score_all(state)
    scores[state.seen[state.seen < ITEMS]] = -np.inf
    best = top_k(scores, k)
    return best.tolist(), scores[best].tolist()


def rows_read(rec: Recommender, state: UserState, k: int) -> int:
    """Return how many rows were scored whole; all where the bounds do not pay."""
    catalogue, read = rec._catalogue, 0

    def score(at: np.ndarray) -> np.ndarray:
        nonlocal read
        read += len(at)
        return catalogue._own(state, at)

    assert catalogue._heads is not None
    return read if catalogue._heads.best(state, k, state.seen, score) else ITEMS


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(0, 60), k=st.sampled_from([1, 10, 137, 1000]))
def test_the_best_are_those_of_a_full_scan(rec: Recommender, seed: int, length: int, k: int) -> None:
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
def test_users_unlike_those_it_was_fitted_to_get_the_same_answers(rec: Recommender, kind: str) -> None:
    rng = np.random.default_rng(1)
    plain = rec.user_state(["SKU00000005", "SKU00000099"])
    for _ in range(20):
        size = UNUSUAL[kind](rng)
        deep, interest = (np.clip(np.rint(rng.normal(0, size, n)), -2000, 2000).astype(np.float32) for n in (24, 8))
        state = UserState(deep, interest, plain.deep_scale, plain.interest_scale, plain.wide, plain.seen)
        found = rec._catalogue.best(state, 25, state.seen)
        assert (found[0].tolist(), found[1].tolist()) == full_scan(rec, state, 25)


def test_lifted_items_are_looked_at(rec: Recommender) -> None:
    state = rec.user_state(["SKU00000005"])
    lowest = int(np.argmin(rec._catalogue.score_all(state)))
    columns, weights = np.array([lowest, 7], np.int32), np.array([50.0, -50.0])
    state.wide = type(state.wide)(columns, weights)
    assert rec._catalogue.best(state, 3, state.seen)[0][0] == lowest
    assert rec._catalogue.best(state, 3, state.seen)[0].tolist() == full_scan(rec, state, 3)[0]


@pytest.mark.parametrize("tables", ["float32", "int4"])
def test_other_tables_have_heads_too(tmp_path: Path, tables: str) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=24, interest=8, wide=6, tables=tables))
    with Recommender.open(tmp_path / "b", verify="full") as rec:
        state = rec.user_state(["SKU00000005", "SKU00000099"])
        assert rows_read(rec, state, 10) < ITEMS
        found = rec._catalogue.best(state, 10, state.seen)
        wanted, scores = full_scan(rec, state, 10)
        assert found[0].tolist() == wanted
        np.testing.assert_allclose(found[1], scores, rtol=1e-5, atol=1e-6)  # float32 rows: BLAS may sum another way


def test_heads_are_left_out_where_they_do_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items, users = rng.normal(0, 1, (3000, 40)), rng.normal(0, 1, (64, 40))
    bias = np.zeros(3000, np.float32)
    assert fit_heads(lambda start, end: items[start:end], bias, users) == {}  # few items
    monkeypatch.setattr(heads, "LEAST", 1000)
    assert fit_heads(lambda start, end: items[start:end], bias, users) == {}  # no axis says more than another
    items[:, 3:] *= 0.01
    assert fit_heads(lambda start, end: items[start:end], bias, users)["head_rows"].shape == (3000, 8)


def test_heads_of_another_width_are_refused(path: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=24, interest=8, wide=6))
    rows = np.load(tmp_path / "b" / "head_rows.npy")
    np.save(tmp_path / "b" / "head_rows.npy", rows[:, 1:])
    with pytest.raises(BundleError, match=r"head_rows\.npy is not as wide as head_step\.npy"):
        Recommender.open(tmp_path / "b", verify="none")
