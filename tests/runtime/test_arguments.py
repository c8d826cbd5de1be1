"""A bad argument raises ArgumentError, bad data DataError, and a bug is neither."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import bundles
from helpers.scores import bits
from tlrec_edge import ArgumentError, BundleError, DataError, History, ItemRows, Recommender

EXPECTED_IDS = "expected a list of item ids, got"
NO_ORDER = f"{EXPECTED_IDS} the set .*; a set has no order"


A_SET: Any = {"i1"}
BAD_ARGUMENTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no candidates": (lambda rec: rec.score(["i1"], None), f"candidates: {EXPECTED_IDS} NoneType"),
    "one candidate": (lambda rec: rec.score(["i1"], 5), f"candidates: {EXPECTED_IDS} int 5"),
    "bytes": (lambda rec: rec.score(["i1"], b"i2"), f"candidates: {EXPECTED_IDS} bytes"),
    "a mapping": (lambda rec: rec.score(["i1"], {"i2": 1}), f"candidates: {EXPECTED_IDS} dict"),
    "no axis": (
        lambda rec: rec.score(["i1"], np.array("i2")),
        f"candidates: {EXPECTED_IDS} ndarray",
    ),
    "two axes": (
        lambda rec: rec.score(["i1"], np.array([["i2"]])),
        f"candidates: {EXPECTED_IDS} ndarray",
    ),
    "an id of floats": (
        lambda rec: rec.score(["i1"], [2.5]),
        "an id must be a string or an integer, got float 2.5",
    ),
    "no user": (lambda rec: rec.score(None, ["i2"]), f"user: {EXPECTED_IDS} NoneType"),
    "a float user": (lambda rec: rec.user_state(2.5), f"user: {EXPECTED_IDS} float"),
    "a bool user": (
        lambda rec: rec.recommend(True),
        "an id must be a string or an integer, got bool",
    ),
    "bytes user": (lambda rec: rec.recommend(b"ann"), f"user: {EXPECTED_IDS} bytes"),
    "a set user": (lambda rec: rec.recommend({"i1"}), f"user: {NO_ORDER}"),
    "a set in a history": (lambda rec: rec.recommend(History(A_SET)), f"history: {NO_ORDER}"),
    "a set of candidates": (lambda rec: rec.score(["i1"], {"i2", "i3"}), f"candidates: {NO_ORDER}"),
    "a frozen set of candidates": (
        lambda rec: rec.score(["i1"], frozenset({"i2"})),
        f"candidates: {EXPECTED_IDS} frozenset .*no order",
    ),
    "keys as candidates": (
        lambda rec: rec.score(["i1"], {"i2": 1}.keys()),
        f"candidates: {EXPECTED_IDS} dict_keys .*no order",
    ),
    "a set of pairs": (lambda rec: rec.score_pairs(["ann"], {"i1"}), f"items: {NO_ORDER}"),
    "a set of users": (
        lambda rec: rec.recommend_many({"ann"}),
        "users: expected a list of users, got the set .*no order",
    ),
    "a set of rows": (lambda rec: rec.rows({"i1"}), f"items: {NO_ORDER}"),
    "a set of events": (
        lambda rec: rec.recommend(History(["i1"], A_SET)),
        "events: expected a list of events, .*no order",
    ),
    "a view of bytes": (
        lambda rec: rec.score(["i1"], memoryview(b"i2")),
        f"candidates: {EXPECTED_IDS} memoryview",
    ),
    "a bool id": (lambda rec: rec.score(["i1"], [True]), "an id must be .*got bool True"),
    "an id that equals another": (
        lambda rec: rec.score_pairs([[1], [True]], ["i1", "i1"]),
        "an id must be .*got bool True",
    ),
    "an id that is not a number": (
        lambda rec: rec.score(["i1"], [float("nan")]),
        "an id must be .*got float nan",
    ),
    "a very long id": (lambda rec: rec.score(["i1"], [10**5000]), "thousands of digits"),
    "a very long user id": (lambda rec: rec.recommend(10**5000), "thousands of digits"),
    "a very long k": (lambda rec: rec.recommend(["i1"], [10**5000]), "k = a list, expected"),
    "a list of lists": (
        lambda rec: rec.score([["i1"]], ["i2"]),
        "an id must be a string or an integer, got list",
    ),
    "k float": (lambda rec: rec.recommend(["i1"], 2.5), r"k = 2\.5, expected an integer from 1 on"),
    "k bool": (lambda rec: rec.recommend(["i1"], True), "k = True, expected an integer from 1 on"),
    "k text": (lambda rec: rec.similar("i1", "5"), "k = '5', expected an integer from 1 on"),
    "k none": (lambda rec: rec.similar("i1", None), "k = None, expected an integer from 1 on"),
    "exclude text": (
        lambda rec: rec.recommend(["i1"], exclude="i2"),
        "exclude = 'i2'; expected 'history'",
    ),
    "exclude number": (
        lambda rec: rec.recommend(["i1"], exclude=5),
        f"exclude: {EXPECTED_IDS} int",
    ),
    "allow text": (
        lambda rec: rec.recommend(["i1"], allow="i2"),
        f"allow: {EXPECTED_IDS} the string",
    ),
    "allow number": (lambda rec: rec.recommend(["i1"], allow=5), f"allow: {EXPECTED_IDS} int"),
    "allow table": (
        lambda rec: rec.recommend(["i1"], allow=np.ones((60, 1), bool)),
        "mask `allow` has",
    ),
    "allow no axis": (
        lambda rec: rec.recommend(["i1"], allow=np.array(True)),
        "mask `allow` has shape",
    ),
    "similar list": (
        lambda rec: rec.similar(["i1"]),
        "an id must be a string or an integer, got list",
    ),
    "has list": (
        lambda rec: rec.has_user(["ann"]),
        "an id must be a string or an integer, got list",
    ),
    "users none": (
        lambda rec: rec.score_pairs(None, ["i1"]),
        "users: expected a list of users, one for each item",
    ),
    "users text": (
        lambda rec: rec.score_pairs("a", ["i1"]),
        "users: expected a list of users.*got the string 'a'",
    ),
    "items none": (lambda rec: rec.score_pairs(["ann"], None), f"items: {EXPECTED_IDS} NoneType"),
    "items text": (
        lambda rec: rec.score_pairs(["a", "b"], "i1"),
        f"items: {EXPECTED_IDS} the string",
    ),
    "a user of pairs": (
        lambda rec: rec.score_pairs([None], ["i1"]),
        r"users\[0\]: expected a history.*got None",
    ),
    "lists in pairs": (
        lambda rec: rec.score_pairs(["a", [["i1"]]], ["i1", "i2"]),
        r"users\[1\]: expected a history",
    ),
    "a stream": (
        lambda rec: rec.score_pairs([iter(["i1"])], ["i1"]),
        r"users\[0\]: expected a history",
    ),
    "features list": (
        lambda rec: rec.add_items(["N"]),
        "features: expected a mapping.*got \\['N'\\]",
    ),
    "features none": (lambda rec: rec.add_items(None), "features: expected a mapping"),
    "columns text": (lambda rec: rec.add_items({"N": "mug"}), "features: expected a mapping"),
    "vectors text": (
        lambda rec: rec.add_items({"N": {"title": "x"}}, "v"),
        "text_vectors: expected numbers",
    ),
    "vectors huge": (
        lambda rec: rec.add_items({"N": {"title": "x"}}, np.full((1, 3), 1e30)),
        "text_vectors .*; expected finite values",
    ),
}


BAD_FEATURES: dict[str, tuple[Callable[[Any], object], str]] = {
    "price text": (
        lambda rec: rec.add_items({"N": {"price": "abc"}}),
        "item 'N': price = 'abc'; expected a finite number",
    ),
    "price inf": (
        lambda rec: rec.add_items({"N": {"price": float("inf")}}),
        "item 'N': price = inf; expected a finite",
    ),
    "price list": (
        lambda rec: rec.add_items({"N": {"price": [1]}}),
        r"item 'N': price = \[1\]; expected a finite",
    ),
    "title of digits": (
        lambda rec: rec.add_items({"N": {"title": 10**5000}}),
        "item 'N': title = a int; expected text",
    ),
    "domain list": (
        lambda rec: rec.add_items({"N": {"title": "mug", "domain": ["de"]}}),
        r"item 'N': domain = \['de'\]; expected text",
    ),
    "title list": (
        lambda rec: rec.add_items({"N": {"title": ["mug"]}}),
        r"item 'N': title = \['mug'\]; expected text",
    ),
}


def check_refused(
    rec: Recommender, call: Callable[[Any], object], kind: type[DataError], message: str
) -> None:
    before = len(rec)
    with pytest.raises(DataError, match=message) as caught:
        call(rec)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert len(rec) == before


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_a_bad_argument_is_named(rec: Recommender, case: str) -> None:
    call, message = BAD_ARGUMENTS[case]
    check_refused(rec, call, ArgumentError, message)


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_a_bad_feature_names_its_item_and_column(rec: Recommender, case: str) -> None:
    call, message = BAD_FEATURES[case]
    check_refused(rec, call, DataError, message)


class TimeLimit(Exception):
    """What a signal handler of a service raises, at any point of a call."""


class InterruptedSession:
    """A session during whose runs a signal arrives."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> Any:
        raise TimeLimit

    run_with_iobinding = run


def test_the_error_of_a_signal_handler_is_not_blamed_on_the_bundle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recommender.open(path) as rec:
        rec.item_texts({"new": {"title": "mug"}})
        cold = rec._open().cold
        assert cold is not None
        for graph in (rec._open().builder.encoder, cold.tower):
            monkeypatch.setattr(graph, "session", InterruptedSession(graph.session))
        with pytest.raises(TimeLimit):
            rec.score(["i1"], ["i2"])
        with pytest.raises(TimeLimit):
            rec.add_items({"new": {"title": "mug"}})
        assert len(rec) == 60


def test_sets_are_fine_if_their_order_does_not_matter(rec: Recommender) -> None:
    names = {"i3", "i4", "i5"}
    found = rec.recommend(["i1"], 3, allow=names)  # type: ignore[arg-type]  # no Sequence
    assert set(found.items) == names
    assert found.items == rec.recommend(["i1"], 3, allow=sorted(names)).items
    excluded = rec.recommend(["i1"], 60, exclude=names)  # type: ignore[arg-type]  # no Sequence
    assert len(excluded.items) == 57
    several = rec.recommend_many([["i1"]], 60, exclude=names)  # type: ignore[arg-type]  # no Sequence
    assert several[0].items == excluded.items


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("events", True),
        ("events", np.True_),
        ("events", 1.0),
        ("events", None),
        ("events", b"view"),
        ("timestamps", True),
        ("timestamps", np.True_),
        ("timestamps", b"17"),
        ("timestamps", None),
        ("timestamps", "yesterday"),
        ("timestamps", np.datetime64("2024-01-01")),
    ],
)
def test_a_value_that_is_no_event_or_time_is_refused(column: str, value: object) -> None:
    with pytest.raises(DataError, match=r"unknown event|a timestamp is a number"):
        History(["i1"], **{column: [value]})  # type: ignore[arg-type]  # what is tested
    with pytest.raises(DataError, match="a timestamp is a number"):
        History(["i1"], now=True)


def test_an_error_of_the_caller_is_not_blamed_on_the_bundle(rec: Recommender) -> None:
    def history() -> Iterator[str]:
        yield "i1"
        raise ValueError("lost connection")

    calls: tuple[Callable[[Any], object], ...] = (
        lambda user: rec.score(user, ["i2"]),
        rec.recommend,
        rec.user_state,
    )
    for call in calls:
        with pytest.raises(ValueError, match="lost connection") as caught:
            call(history())
        assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="lost connection"):
        rec.recommend_many([item] for item in history())  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("changes", [{"d": 9}, {"seed": 1}, {"users": ("ann",)}])
def test_states_and_rows_of_another_bundle_are_refused(
    rec: Recommender, tmp_path: Path, changes: dict[str, Any]
) -> None:
    bundles.build(tmp_path / "b", **changes)
    with Recommender.open(tmp_path / "b") as other:
        state, rows = other.user_state(["i1"]), other.rows(["i1", "i2"])
    sent: tuple[Any, Any] = pickle.loads(pickle.dumps((state, rows)))
    rec.user_state(rec.rows(["i1", "i2"]))  # is cached
    for user in (state, sent[0]):
        for call in (lambda: rec.score(user, ["i2"]), lambda: rec.recommend(user)):  # noqa: B023
            with pytest.raises(ArgumentError, match="user: the state is of another bundle"):
                call()
    for items in (rows, sent[1], rows[1:], rows + ItemRows(np.array([3]))):
        calls: tuple[Callable[[Any], object], ...] = (
            lambda items: rec.score(["i1"], items),
            rec.user_state,
            lambda items: rec.user_state(History(items)),
            lambda items: rec.recommend(["i1"], allow=items),
            lambda items: rec.recommend(["i1"], exclude=items),
            lambda items: rec.score_pairs(
                [rec.rows(["i1", "i2"])[: len(items)], items], ["i1"] * 2
            ),
            rec.rows,
        )
        for use in calls:
            with pytest.raises(ArgumentError, match="the rows are of another bundle"):
                use(items)
    with pytest.raises(ArgumentError, match="rows of two bundles cannot be joined"):
        rec.rows(["i1"]) + rows


def test_states_and_rows_of_a_copy_of_the_bundle_are_accepted(
    rec: Recommender, path: Path, tmp_path: Path
) -> None:
    with Recommender.open(shutil.copytree(path, tmp_path / "copy")) as copy:
        state, rows = copy.user_state(["i1", "i2"]), copy.rows(["i1", "i2"])
        assert bits(rec.score(state, rows)) == bits(rec.score(["i1", "i2"], ["i1", "i2"]))


BAD_OPTIONS = [
    ("unknown", "x"),
    ("threads", 0),
    ("threads", "2"),
    ("threads", True),
    ("cache", -1),
    ("cache", None),
    ("verify", "x"),
]


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS)
def test_a_bad_option_of_open_is_named(path: Path, name: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"{name} = .*, expected"):
        Recommender.open(path, **{name: value})  # type: ignore[arg-type]  # what is tested


def test_a_closed_recommender_says_so(path: Path) -> None:
    rec = Recommender.open(path)
    rec.close()
    for call in (
        lambda: rec.score(["i1"], ["i2"]),
        lambda: rec.user_state(["i1"]),
        lambda: len(rec),
        rec.stats,
    ):
        with pytest.raises(BundleError, match="is closed; open it again"):
            call()


def test_a_state_with_items_that_the_bundle_lacks_is_refused(
    rec: Recommender, tmp_path: Path
) -> None:
    bundles.build(tmp_path / "b", history_only=340)
    with Recommender.open(tmp_path / "b") as other:
        state = other.user_state(["i399"])
        with pytest.raises(ArgumentError, match="user: the state is of another bundle"):
            rec.recommend(state)
