"""A history is checked and put in order before it is encoded."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.scores import bits
from tlrec_edge import DataError, History, Recommender
from tlrec_edge.choices import EVENTS
from tlrec_edge.runtime.history import as_history


@pytest.mark.parametrize("now", [None, 0.0, float("nan"), float("inf"), -7e9, 7e9])
def test_times_out_of_range_give_finite_scores(rec: Recommender, now: float | None) -> None:
    times = [float("nan"), float("inf"), -float("inf"), -7e9, 7e9, 0.0]
    history = History([f"i{row}" for row in range(6)], timestamps=times, now=now)
    assert np.isfinite(rec.score(history, ["i7", "i8"])).all()
    assert np.isfinite(rec.score(History(["i1"], timestamps=[float("nan")], now=now), ["i7"])).all()


def test_unordered_times_are_put_in_order(rec: Recommender) -> None:
    ordered = History(["i1", "i2", "i3"], ["view", "cart", "click"], [10, 20, 86_400 * 9])
    mixed = History(["i3", "i1", "i2"], ["click", "view", "cart"], [86_400 * 9, 10, 20])
    assert bits(rec.score(ordered, ["i7", "i8"])) == bits(rec.score(mixed, ["i7", "i8"]))


def test_a_bad_history_names_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"unknown event 'like'; known: view, click"):
        History(["i1"], events=["like"])
    for event in (5, -1, None, 1.5):
        with pytest.raises(DataError, match="unknown event"):
            History(["i1"], events=[event])  # type: ignore[list-item]  # what is tested
    with pytest.raises(DataError, match="2 items has 1 timestamps"):
        History(["i1", "i2"], timestamps=[1.0])
    with pytest.raises(DataError, match="seconds since 1970, got 'today'"):
        History(["i1"], timestamps=["today"])  # type: ignore[list-item]  # what is tested
    with pytest.raises(DataError, match="a list of item ids, got the string 'i1'"):
        History("i1")
    with pytest.raises(DataError, match=r"user: expected .* got float 3\.5"):
        as_history(3.5)  # type: ignore[arg-type]  # what is tested
    assert [History(["i1"], events=[name]).events for name in EVENTS] == [
        (code,) for code in range(5)
    ]


@pytest.mark.parametrize(
    ("moment", "likely"),
    [
        (1_764_000_000_000, r"looks like milliseconds: divide by 1000$"),
        (1_764_000_000_000_000, r"looks like microseconds: divide by 1000000$"),
        (1_764_000_000_000_000_000, r"looks like nanoseconds: divide by 1000000000$"),
        (7_258_118_401, "looks like milliseconds"),
        (-1e300, r"-1e\+300 is beyond the year 2200$"),
    ],
)
def test_a_time_in_another_unit_is_refused(moment: float, likely: str) -> None:
    with pytest.raises(DataError, match=f"seconds since 1970.*{likely}"):
        History(["i1", "i2"], timestamps=[5, moment])
    with pytest.raises(DataError, match=f"seconds since 1970.*{likely}"):
        History(["i1"], timestamps=[5], now=moment)
    History(["i1"], timestamps=[7_258_118_400])


@pytest.mark.parametrize("value", [5, None, {"i1": 1}])
def test_a_history_that_is_not_a_list_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="history: expected a list of item ids, got"):
        History(value)  # type: ignore[arg-type]  # what is tested
    for name in ("events", "timestamps"):
        with pytest.raises(
            DataError, match=f"{name}: expected a list of {name}, one for each item, got the string"
        ):
            History(["i1"], **{name: "view"})  # type: ignore[arg-type]  # what is tested
