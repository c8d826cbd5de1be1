"""A closed recommender raises the package's own error, whatever other threads are doing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import bundles
from helpers.counts import say
from tlrec_edge import BundleError, Recommender

FEATURES = {"title": "red mug", "colour": "red", "price": 2.0}
CALLS: dict[str, Callable[[Recommender], Any]] = {
    "len": len,
    "deterministic": lambda rec: rec.deterministic,
    "has_user": lambda rec: rec.has_user("ann"),
    "user_state": lambda rec: rec.user_state(["i1", "i2"]),
    "rows": lambda rec: rec.rows(["i1"]),
    "score": lambda rec: rec.score(["i1"], ["i2", "unknown"]),
    "score stored": lambda rec: rec.score("ann", ["i2"]),
    "score_pairs": lambda rec: rec.score_pairs(["ann", "nobody"], ["i1", "i2"]),
    "recommend": lambda rec: rec.recommend(["i1", "i9"], 5),
    "recommend allow": lambda rec: rec.recommend(["i1"], 5, allow=["i3"], exclude=["i4"]),
    "recommend_many": lambda rec: rec.recommend_many([["i1"], ["i2"]], 5, exclude=["i4"]),
    "similar": lambda rec: rec.similar("i1", 5),
    "item_texts": lambda rec: rec.item_texts({"new": FEATURES}),
    "add_items": lambda rec: rec.add_items({f"new{len(rec)}": FEATURES}),
    "stats": lambda rec: rec.stats(),
    "memory": lambda rec: rec.memory(),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_on_a_closed_recommender_says_so(path: Path, call: str) -> None:
    rec = Recommender.open(path)
    CALLS[call](rec)
    rec.close()
    rec.close()
    with pytest.raises(BundleError, match="is closed; open it again"):
        CALLS[call](rec)
    assert rec.manifest["format"] == 1


def close_while(path: Path, call: Callable[[Recommender], Any], threads: int) -> list[Exception]:
    """Close a recommender while threads call it, and return the errors that ended them."""
    rec, errors = Recommender.open(path, unknown="nan"), []
    begun = threading.Barrier(threads + 1)

    def work() -> None:
        begun.wait()
        try:
            while True:
                call(rec)
        except Exception as error:
            errors.append(error)

    crowd = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    begun.wait()
    rec.close()
    for thread in crowd:
        thread.join(timeout=60)
    assert len(errors) == threads, "every thread ends"
    return errors


def check_closing(path: Path, rounds: int) -> None:
    for call in CALLS.values():
        for _ in range(rounds):
            for error in close_while(path, call, threads=3):
                assert type(error) is BundleError, repr(error)
                assert "is closed; open it again" in str(error)
    say(f"{rounds * len(CALLS)} recommenders closed under load")


def test_threads_get_the_same_error_if_it_is_closed_under_load(path: Path) -> None:
    check_closing(path, rounds=1)


@pytest.mark.slow
def test_threads_get_the_same_error_in_many_rounds(path: Path) -> None:
    check_closing(path, rounds=60)


@pytest.mark.parametrize("call", CALLS)
def test_closing_in_the_middle_of_a_call(
    path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Close at every point at which a call looks at what is open: it finishes or is refused."""
    outcomes = set()
    for step in range(1, 9):
        rec = Recommender.open(path)
        found, seen = rec._open, []

        def look() -> Any:
            parts = found()  # noqa: B023  # called in this round only
            seen.append(parts)  # noqa: B023
            if len(seen) == step:  # noqa: B023
                rec._parts = None  # noqa: B023  # `close`, without the lock that `add_items` holds
            return parts

        monkeypatch.setattr(rec, "_open", look)
        try:
            CALLS[call](rec)
            outcomes.add("finished")
        except BundleError as error:
            outcomes.add(str(error))
    assert outcomes <= {"finished", f"the recommender of {path} is closed; open it again"}
    assert "finished" in outcomes


def test_closing_releases_the_files(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not list mapped files")
    bundles.build(tmp_path / "released")
    rec = Recommender.open(tmp_path / "released")
    rec.recommend(["i1"])
    assert "released" in maps.read_text("utf-8")
    rec.close()
    assert "released" not in maps.read_text("utf-8")


def test_items_that_are_added_while_it_closes_do_not_open_it_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = Recommender.open(path)
    rec.item_texts({"new": FEATURES})
    cold: Any = rec._open().cold
    closing = threading.Thread(target=rec.close)

    def extend(*arguments: Any) -> Any:
        closing.start()
        closing.join(timeout=0.05)
        return type(cold).extend(cold, *arguments)

    monkeypatch.setattr(cold, "extend", extend)
    rec.add_items({"new": FEATURES})
    closing.join()
    with pytest.raises(BundleError, match="is closed"):
        len(rec)
