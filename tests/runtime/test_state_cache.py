"""The cache of user states is bounded in entries and bytes, and counted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import bundles
from helpers.scores import bits
from tlrec_edge import History, ItemRows, Recommender
from tlrec_edge.runtime import state_cache


def test_cache_is_bounded_and_counted(path: Path) -> None:
    with Recommender.open(path, cache=3) as rec:
        for row in range(10):
            rec.user_state([f"i{row}"])
        assert rec.user_state(["i9"]) is rec.user_state(["i9"])
        rec.user_state([f"i{row % 80}" for row in range(5000)])
        stats = rec.stats()
        assert (stats["cached_states"], stats["cache_hits"], stats["cache_misses"]) == (3, 2, 11)
        assert stats["private_bytes"] > 0
    with Recommender.open(path, cache=0) as rec:
        assert bits(rec.score(["i1"], ["i2"])) == bits(rec.score(["i1"], ["i2"]))
        assert rec.stats()["cached_states"] == 0


def test_cached_states_do_not_exceed_their_bytes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_cache.StateCache.__init__, "__defaults__", (8_000,))
    with Recommender.open(path) as rec:
        for row in range(80):
            # A search sums the item-item weights, which the state then keeps.
            rec.recommend([f"i{row}", f"i{(row + 1) % 80}"], 3)
            assert 0 < rec.memory()["states"] <= 8_000
        assert 2 < rec.stats()["cached_states"] < 8
        everything = [f"i{row}" for row in range(80)]  # alone more than the cache holds
        assert rec.user_state(everything) is not rec.user_state(everything)
        assert rec.user_state(["i79", "i0"]) is rec.user_state(["i79", "i0"])
        assert rec.stats()["cache_hits"] == 2, "a large state does not drop the others"


def test_the_reported_bytes_are_those_that_the_cache_takes(tmp_path: Path) -> None:
    """Long ids, long histories and times: none of them is kept, so the cache does not grow."""
    ids = [f"i{row}-" + "x" * 2000 for row in range(80)]
    bundles.build(tmp_path / "b", ids=ids)
    rng = np.random.default_rng(0)

    def history() -> History:
        size = int(rng.integers(1, 1000))
        items = [ids[row] + str(rng.integers(1000)) for row in rng.integers(0, 80, size)]
        items[:20] = rng.choice(ids, len(items[:20]))
        return History(items, None, list(map(float, range(size))))

    with Recommender.open(tmp_path / "b", cache=200) as rec:
        rec.recommend(ids[:3])
        tracemalloc.start()
        try:
            before, cached = tracemalloc.get_traced_memory()[0], rec.memory()["states"]
            for _ in range(150):
                rec.recommend(history())
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        reported = rec.memory()["states"] - cached
        assert rec.stats()["cached_states"] == 151
    assert 0.8 * grown < reported < 1.25 * grown
    assert reported < 2_000_000


ids = st.text(st.characters(codec=None) | st.sampled_from("\0a,'"), max_size=4)
times = st.floats(0, 1e9) | st.just(float("nan"))


@st.composite
def histories(draw: st.DrawFn) -> History:
    items = draw(st.lists(ids, max_size=3))
    columns: dict[str, st.SearchStrategy[Any]] = {
        "events": st.lists(st.integers(0, 4), min_size=len(items), max_size=len(items)),
        "timestamps": st.lists(times, min_size=len(items), max_size=len(items)),
    }
    drawn: dict[str, Any] = {name: draw(st.none() | values) for name, values in columns.items()}
    return History(items, now=draw(st.none() | times), **drawn)


@given(histories(), histories())
def test_other_histories_have_other_keys(one: History, other: History) -> None:
    same = repr(one) == repr(other)  # NaN does not equal itself
    assert (one.digest() == other.digest()) == same
    copy = History(list(one.items), one.events, one.timestamps, one.now)
    assert copy.digest() == one.digest()


def test_ids_that_look_like_several_have_other_keys() -> None:
    items: list[list[str]] = [
        *([], [""], ["", ""], ["a", "b"], ["a\0b"], ["ab"], ["a\0b", "c"], ["a", "b\0c"]),
        ["('a\\x00b',)"],
    ]
    keys = {History(names).digest() for names in items}
    rows = [ItemRows(np.array(values, np.int64)) for values in ([], [0], [1], [0, 1], [1, 0])]
    keys |= {History(values).digest() for values in [*rows, ItemRows(np.array([1]), "b")]}
    assert len(keys) == len(items) + 6
