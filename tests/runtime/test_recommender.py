from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tlrec_edge
from helpers import bundles
from tlrec_edge import ArgumentError, BundleError, DataError, History, Recommender, UnknownIdError
from tlrec_edge.bundle.format import Storage
from tlrec_edge.bundle.reader import Bundle, write_bundle
from tlrec_edge.choices import EVENTS
from tlrec_edge.runtime.history import as_history

CANDIDATES, ITEMS = 60, 80
ids_of_candidates = st.lists(
    st.integers(0, CANDIDATES - 1).map(lambda row: f"i{row}"), min_size=1, max_size=200
)
ids_of_histories = st.lists(st.integers(0, ITEMS + 5).map(lambda row: f"i{row}"), max_size=12)
in_one_fixture = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "bundle"
    bundles.build(path, users=["ann", "bob", "🛒"])
    return path


@pytest.fixture(scope="module")
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened


def bits(scores: np.ndarray) -> list[int]:
    assert scores.dtype == np.float32
    return scores.view(np.int32).tolist()


def reference(path: Path, history: History, rows: Sequence[int]) -> np.ndarray:
    """Score as the format says, in float64, row by row."""
    bundle = Bundle.open(path)
    shape, names = bundle.shape, bundle.strings("item_ids")
    known = {names[row]: row for row in range(shape.items)}
    events = history.events or [None] * len(history.items)
    times = history.timestamps or [None] * len(history.items)
    log = [
        (known[item], e, t)
        for item, e, t in zip(history.items, events, times, strict=True)
        if item in known
    ]
    bias = bundle.array("candidate_bias").astype(np.float64)
    if not log:
        return bias[list(rows)]
    rows_of = shape.history_format.values(bundle.array("history_rows")).astype(np.float64)
    vectors = rows_of * bundle.array("history_scale")[:, None].astype(np.float64)
    deep_weight, wide_weight, rest_weight = bundle.scoring.weights
    inputs = np.zeros((1, shape.length, shape.d), np.float32)
    weight = np.full((1, shape.length), shape.pad, np.float32)
    for back, (row, event, moment) in enumerate(reversed(log[-shape.length :]), 1):
        inputs[0, -back] = vectors[row]
        weight[0, -back] = bundle.array("position_bias")[-back]
        if event is not None:
            weight[0, -back] += bundle.array("event_bias")[event]
        if moment is not None:
            now = max(moment for _, _, moment in log) if history.now is None else history.now
            age = int(np.floor(np.log2(1 + max(0.0, now - moment) / 86400)))
            weight[0, -back] += bundle.array("age_bias")[
                min(age, len(bundle.array("age_bias")) - 1)
            ]
    session = onnxruntime.InferenceSession(
        bundle.read("encoder.onnx"), providers=["CPUExecutionProvider"]
    )
    user = session.run(["user"], {"history": inputs, "log_weight": weight})[0][0].astype(np.float64)
    distinct = list(dict.fromkeys(row for row, _, _ in reversed(log)))[: shape.max_history]
    counts, wide = np.zeros(shape.groups), np.zeros(shape.candidates)
    for row in distinct:
        for group in bundle.array("groups")[row]:
            counts[group] += group >= 0
        span = slice(*bundle.array("wide_indptr")[row : row + 2])
        scale = (
            bundle.array("wide_scale")[row].astype(np.float64)
            if shape.tables.wide == "int8"
            else 1.0
        )
        wide[bundle.array("wide_columns")[span]] += (
            bundle.array("wide_values")[span] * scale * wide_weight
        )
        if row < shape.candidates:
            wide[row] += bundle.scoring.repeat_bias
    interest = np.log1p(counts) @ bundle.array("interest_in")
    if bundle.has("taste_rows.npy"):
        stored = bundle.array("taste_rows")
        taste = shape.low_rank_format(
            stored.shape[1] if shape.low_rank_width is None else shape.low_rank_width
        ).values(stored)[distinct]
        taste = taste * bundle.array("taste_scale")[distinct, None].astype(np.float64)
        interest[-taste.shape[1] :] += taste.sum(0) * rest_weight
    table, scale = (
        bundle.array("candidate_rows"),
        bundle.array("candidate_scale").astype(np.float64),
    )
    deep, taste_block = (
        shape.candidate_format.values(table, block).astype(np.float64) for block in (0, 1)
    )
    own = deep @ user * scale[:, 0] * deep_weight
    return (own + taste_block @ interest * scale[:, 1] + wide + bias)[list(rows)]


HISTORIES = {
    "one": History(["i3"]),
    "short": History(["i3", "i70", "i3"]),
    "long": History([f"i{row % 80}" for row in range(0, 300, 7)]),
    "unknown among": History(["i3", "who", "i9"]),
    "events": History(["i1", "i2", "i3"], events=["view", "purchase", 2]),
    "times": History(["i1", "i2", "i3"], timestamps=[0, 86_400 * 3, 86_400 * 40]),
    "now": History(["i1", "i2"], events=["cart", "click"], timestamps=[5, 10], now=86_400 * 500),
    "empty": History([]),
    "all unknown": History(["who", "what"]),
}


@pytest.mark.parametrize("case", HISTORIES)
@pytest.mark.parametrize("tables", ["int8", "float32", "int6", "int4", "mixed"])
def test_float_path_equals_the_reference(tmp_path: Path, case: str, tables: str) -> None:
    mixed = Storage("int4", "int6", "int8", "int4", "int8")
    storage = mixed if tables == "mixed" else Storage(*4 * (tables,))
    bundles.build(tmp_path / "b", storage=storage, max_history=20)
    expected = reference(tmp_path / "b", HISTORIES[case], range(CANDIDATES))
    names = [f"i{row}" for row in range(CANDIDATES)]
    with Recommender.open(tmp_path / "b", deterministic=False) as rec:
        assert not rec.deterministic
        assert np.abs(rec.score(HISTORIES[case], names) - expected).max() < 1e-5
    with Recommender.open(tmp_path / "b") as rec:
        assert rec.deterministic == (tables != "float32")
        assert np.abs(rec.score(HISTORIES[case], names) - expected).max() < 0.05


@pytest.mark.parametrize("repeat", [0.0, -0.37])
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_thousands_of_item_item_weights_are_added_up_for_one_candidate_as_for_all(
    tmp_path: Path, weights: str, repeat: float
) -> None:
    path = tmp_path / "b"
    bundles.build(path, candidates=300, storage=Storage(*4 * ("int8",), weights))
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    (path / "manifest.json").write_text(json.dumps(manifest | {"repeat": repeat}), "utf-8")
    names, few = [f"i{row}" for row in range(300)], ["i7", "i299", "i7"]
    history = History([f"i{row}" for row in range(2, 320)])
    expected = reference(path, history, range(300))
    with Recommender.open(path, deterministic=False) as rec:
        np.testing.assert_allclose(rec.score(history, names), expected, atol=1e-4)
    with Recommender.open(path) as rec:
        found = rec.recommend(history, 300, exclude=None, exhaustive=True)
        best = dict(zip(found.items, bits(found.scores), strict=True))
        assert bits(rec.score(history, names)) == [best[name] for name in names]
        assert bits(rec.score(history, few)) == [best[name] for name in few]


@given(history=ids_of_histories, asked=ids_of_candidates, data=st.data())
@in_one_fixture
def test_a_pair_has_the_same_bits_alone_and_in_any_batch(
    rec: Recommender, history: list[str], asked: list[str], data: st.DataObject
) -> None:
    state = rec.user_state(history)
    together = dict(zip(asked, bits(rec.score(state, asked)), strict=True))
    shuffled = data.draw(st.permutations(asked))
    assert bits(rec.score(state, shuffled)) == [together[item] for item in shuffled]
    alone = shuffled[0]
    assert bits(rec.score(state, [alone])) == [together[alone]]
    assert bits(rec.score_pairs([state] * len(asked), asked)) == [together[item] for item in asked]
    assert bits(rec.score_pairs([history, ["i5"]], [alone, alone]))[0] == together[alone]
    ranked = rec.recommend(state, CANDIDATES, exclude=None)
    found = dict(zip(ranked.items, bits(ranked.scores), strict=True))
    assert {item: found[item] for item in asked} == together
    allowed = rec.recommend(state, 300, exclude=None, allow=asked)
    assert dict(zip(allowed.items, bits(allowed.scores), strict=True)) == together


@given(
    history=ids_of_histories,
    k=st.integers(1, 100),
    excluded=st.lists(st.integers(0, 70).map("i{}".format)),
)
@in_one_fixture
def test_recommend_equals_the_full_sort(
    rec: Recommender, history: list[str], k: int, excluded: list[str]
) -> None:
    names = [f"i{row}" for row in range(CANDIDATES)]
    scores = dict(zip(names, rec.score(history, names).tolist(), strict=True))
    ranked = sorted(names, key=lambda name: (-scores[name], int(name[1:])))
    assert (
        list(rec.recommend(history, k).items)
        == [name for name in ranked if name not in history][:k]
    )
    kept = [name for name in ranked if name not in excluded][:k]
    assert list(rec.recommend(history, k, exclude=excluded).items) == kept


def test_ties_go_to_the_lower_row(tmp_path: Path) -> None:
    small = bundles.Small(tower=False)
    arrays = bundles.tables(small, np.random.default_rng(0))
    arrays["candidate_bias"] = np.repeat(np.float32([1, 2]), 30)
    strings, encoder = {"item_ids": small.item_ids()}, bundles.pooling_encoder(8, 6, 0)
    write_bundle(
        tmp_path / "b", bundles.manifest(small), arrays, strings, {"encoder.onnx": encoder}
    )
    found = Recommender.open(tmp_path / "b").recommend([], 40)
    assert found.items == tuple(f"i{row}" for row in [*range(30, 60), *range(10)])
    assert found.names == found.items


def test_allow_and_exclude(rec: Recommender) -> None:
    mask = np.zeros(CANDIDATES, bool)
    mask[[3, 4, 5]] = True
    assert set(rec.recommend(["i4"], 10, allow=mask).items) == {"i3", "i5"}
    assert set(
        rec.recommend(["i4"], 10, allow=["i4", "i5", "i5", "i79", "who"], exclude=None).items
    ) == {"i4", "i5"}
    assert rec.recommend(["i4"], 10, allow=[]).items == ()
    assert rec.recommend(["i4"], 10, allow=["i5"], exclude=["i5"]).items == ()
    assert len(rec.recommend(["i4"], 10**6).items) == CANDIDATES - 1
    with pytest.raises(DataError, match=r"has shape \(3,\); there are 60"):
        rec.recommend(["i4"], allow=np.zeros(3, bool))
    with pytest.raises(DataError, match="exclude = 'seen'"):
        rec.recommend(["i4"], exclude="seen")
    for call in (rec.recommend, rec.similar):
        with pytest.raises(DataError, match="k = 0"):
            call("i4", 0)


def test_history_beyond_max_history_is_excluded_still(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", max_history=3)
    history = [f"i{row}" for row in range(20)]
    found = Recommender.open(tmp_path / "b").recommend(history, 100)
    assert not set(found.items) & set(history)
    assert len(found.items) == 40


@pytest.mark.parametrize("now", [None, 0.0, float("nan"), float("inf"), -7e9, 7e9])
def test_absurd_times_do_no_harm(rec: Recommender, now: float | None) -> None:
    times = [float("nan"), float("inf"), -float("inf"), -7e9, 7e9, 0.0]
    history = History([f"i{row}" for row in range(6)], timestamps=times, now=now)
    assert np.isfinite(rec.score(history, ["i7", "i8"])).all()
    assert np.isfinite(rec.score(History(["i1"], timestamps=[float("nan")], now=now), ["i7"])).all()


def test_unordered_times_are_put_in_order(rec: Recommender) -> None:
    ordered = History(["i1", "i2", "i3"], ["view", "cart", "click"], [10, 20, 86_400 * 9])
    mixed = History(["i3", "i1", "i2"], ["click", "view", "cart"], [86_400 * 9, 10, 20])
    assert bits(rec.score(ordered, ["i7", "i8"])) == bits(rec.score(mixed, ["i7", "i8"]))


def test_bad_histories_say_what_is_wrong() -> None:
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
def test_times_in_other_units_are_refused(moment: float, likely: str) -> None:
    with pytest.raises(DataError, match=f"seconds since 1970.*{likely}"):
        History(["i1", "i2"], timestamps=[5, moment])
    with pytest.raises(DataError, match=f"seconds since 1970.*{likely}"):
        History(["i1"], timestamps=[5], now=moment)
    History(["i1"], timestamps=[7_258_118_400])


LISTS = "expected a list of item ids, got"
BAD_ARGUMENTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no candidates": (lambda rec: rec.score(["i1"], None), f"candidates: {LISTS} NoneType"),
    "one candidate": (lambda rec: rec.score(["i1"], 5), f"candidates: {LISTS} int 5"),
    "bytes": (lambda rec: rec.score(["i1"], b"i2"), f"candidates: {LISTS} bytes"),
    "a mapping": (lambda rec: rec.score(["i1"], {"i2": 1}), f"candidates: {LISTS} dict"),
    "no axis": (lambda rec: rec.score(["i1"], np.array("i2")), f"candidates: {LISTS} ndarray"),
    "two axes": (lambda rec: rec.score(["i1"], np.array([["i2"]])), f"candidates: {LISTS} ndarray"),
    "an id of floats": (
        lambda rec: rec.score(["i1"], [2.5]),
        "an id must be a string or an integer, got float 2.5",
    ),
    "no user": (lambda rec: rec.score(None, ["i2"]), f"user: {LISTS} NoneType"),
    "a float user": (lambda rec: rec.user_state(2.5), f"user: {LISTS} float"),
    "a bool user": (
        lambda rec: rec.recommend(True),
        "an id must be a string or an integer, got bool",
    ),
    "bytes user": (lambda rec: rec.recommend(b"ann"), f"user: {LISTS} bytes"),
    "a set user": (lambda rec: rec.recommend({"i1"}), "history: .* oldest first; got the set"),
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
    "exclude number": (lambda rec: rec.recommend(["i1"], exclude=5), f"exclude: {LISTS} int"),
    "allow text": (lambda rec: rec.recommend(["i1"], allow="i2"), f"allow: {LISTS} the string"),
    "allow number": (lambda rec: rec.recommend(["i1"], allow=5), f"allow: {LISTS} int"),
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
    "items none": (lambda rec: rec.score_pairs(["ann"], None), f"items: {LISTS} NoneType"),
    "items text": (lambda rec: rec.score_pairs(["a", "b"], "i1"), f"items: {LISTS} the string"),
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


def test_an_error_of_the_caller_is_not_blamed_on_the_bundle(rec: Recommender) -> None:
    def history() -> Iterator[str]:
        yield "i1"
        raise ValueError("lost connection")

    for call in (rec.score, rec.recommend, rec.user_state):
        with pytest.raises(ValueError, match="lost connection") as caught:
            call(history(), *([["i2"]] if call == rec.score else []))
        assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="lost connection"):
        rec.recommend_many([item] for item in history())


def test_a_state_of_another_bundle_is_refused(rec: Recommender, tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", d=9)
    with (
        Recommender.open(tmp_path / "b") as other,
        pytest.raises(DataError, match="user: the state is of another bundle"),
    ):
        rec.score(other.user_state(["i1"]), ["i2"])


@pytest.mark.parametrize("value", [5, None, {"i1": 1}])
def test_histories_of_wrong_types(value: object) -> None:
    with pytest.raises(DataError, match=f"history: {LISTS}"):
        History(value)  # type: ignore[arg-type]  # what is tested
    for name in ("events", "timestamps"):
        with pytest.raises(
            DataError, match=f"{name}: expected a list of one for each item, got the string"
        ):
            History(["i1"], **{name: "view"})


def test_unknown_candidates_go_by_policy(path: Path) -> None:
    asked = ["i5", "who", "i75"]  # i75 is known as history only
    with Recommender.open(path) as rec:
        found = rec.score(["i1"], asked)
        assert found[1:].tolist() == [-1.5, -1.5]
        assert rec.stats()["unknown_candidates"] == 2
    with Recommender.open(path, unknown="nan") as rec:
        assert np.isnan(rec.score(["i1"], asked)).tolist() == [False, True, True]
        assert np.isnan(rec.score_pairs(["ann", "nobody"], ["i1", "i1"])).tolist() == [False, True]
    with Recommender.open(path, unknown="error") as rec:
        with pytest.raises(UnknownIdError, match="'who' is not a candidate"):
            rec.score(["i1"], asked)
        with pytest.raises(UnknownIdError, match="'nobody' is not in the bundle's user table"):
            rec.score_pairs(["nobody"], ["i1"])


def test_nothing_known_is_popularity(rec: Recommender, path: Path) -> None:
    bias = Bundle.open(path).array("candidate_bias")
    names = [f"i{row}" for row in range(CANDIDATES)]
    for user in ([], ["who"], "nobody"):
        assert rec.score(user, names).tolist() == bias.tolist()
    assert rec.recommend([], 1).items == (f"i{int(bias.argmax())}",)


@pytest.mark.parametrize("kind", ["hashed", "plain"])
def test_stored_users(tmp_path: Path, kind: str) -> None:
    bundles.build(tmp_path / "b", users=["ann", "42", "🛒"], user_ids=kind)
    bundle = Bundle.open(tmp_path / "b")
    with Recommender.open(tmp_path / "b", deterministic=False) as rec:
        assert [rec.has_user(user) for user in ("ann", 42, "🛒", "nobody", "i1")] == [
            True,
            True,
            True,
            False,
            False,
        ]
        names = [f"i{row}" for row in range(CANDIDATES)]
        user = bundle.array("user_rows")[1].astype(np.float64)
        table, scale = (
            bundle.array("candidate_rows").astype(np.float64),
            bundle.array("candidate_scale"),
        )
        expected = table[:, :8] @ user[:8] * scale[:, 0] + table[:, 8:] @ user[8:] * scale[:, 1]
        span = slice(*bundle.array("user_wide_indptr")[1:3])
        expected[bundle.array("user_wide_columns")[span]] += bundle.array("user_wide_values")[span]
        assert np.abs(rec.score(42, names) - expected - bundle.array("candidate_bias")).max() < 1e-5


def test_pairs_mix_ids_histories_lists_and_states(rec: Recommender) -> None:
    state = rec.user_state(["i1", "i2"])
    users = ["ann", History(["i1", "i2"]), ["i1", "i2"], state, "nobody", "ann"]
    found = rec.score_pairs(users, ["i9"] * 5 + ["i10"])
    assert len(set(bits(found[1:4]))) == 1
    assert bits(found[[0, 5]]) == bits(rec.score("ann", ["i9", "i10"]))
    assert bits(rec.score_pairs(np.array(["ann", "ann"]), np.array(["i9", "i10"]))) == bits(
        found[[0, 5]]
    )
    assert bits(rec.score(np.int64(3), ["i9"])) == bits(rec.score("nobody", ["i9"]))
    with pytest.raises(DataError, match="2 users and 1 items"):
        rec.score_pairs(["ann", "bob"], ["i1"])
    assert rec.score_pairs([], []).shape == (0,)
    assert rec.score(["i1"], []).shape == (0,)
    with pytest.raises(
        DataError, match="candidates: expected a list of item ids, got the string 'i2'"
    ):
        rec.score(["i1"], "i2")


def test_similar(rec: Recommender, path: Path) -> None:
    rows = Bundle.open(path).array("history_rows").astype(np.float64)
    for item in (4, 70):  # a candidate, and an item known as history only
        cosine = rows @ rows[item] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[item])
        best = [
            row
            for row in np.argsort(-cosine, kind="stable").tolist()
            if row < CANDIDATES and row != item
        ][:5]
        found = rec.similar(f"i{item}", 5)
        assert found.items == tuple(f"i{row}" for row in best)
        assert np.abs(found.scores - cosine[best]).max() < 1e-5
    with pytest.raises(UnknownIdError, match="'who' is not in the bundle"):
        rec.similar("who")


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


NEW = {
    "new1": {"title": "red mug", "colour": "red", "price": 2.5},
    "new2": {"title": "blue jug", "colour": "green", "price": float("nan")},
    7: {"name": "Seven", "colour": None},
}


def test_added_items_score_rank_and_stand_in_histories(path: Path) -> None:
    with Recommender.open(path) as rec:
        before = rec.score(["i1", "new1"], ["i5", "new1"])
        rec.add_items(NEW)
        asked = ["i5", "new2", "i6", "7", "new1"]
        found = rec.score(["i1"], asked)
        assert bits(found[:1]) == bits(before[:1])
        assert found[4] != before[1]
        ranked = rec.recommend(["i1"], 100)
        assert (len(rec), len(ranked.items), rec.stats()["added_items"]) == (63, 62, 3)
        scores = dict(zip(ranked.items, bits(ranked.scores), strict=True))
        assert [scores[item] for item in asked] == bits(found)
        assert dict(zip(ranked.items, ranked.names, strict=True))["7"] == "Seven"
        assert dict(zip(ranked.items, ranked.names, strict=True))["new1"] == "red mug"
        assert bits(rec.score(["i1", "new1"], ["i5"])) != bits(before[:1])
        assert "new1" not in rec.recommend(["i1", "new1"], 100).items
        assert set(rec.recommend(["i1"], 9, allow=["new1", "i3"]).items) == {"new1", "i3"}
        assert len(rec.similar("new1", 100).items) == 62
        rec.add_items({"later": {"title": "mug"}})
        assert bits(rec.score(["i1"], asked)) == bits(found)
        rec.add_items({})


def test_added_vectors_are_those_of_the_tower(path: Path) -> None:
    with Recommender.open(path, deterministic=False) as rec:
        rec.add_items({"new1": NEW["new1"]}, text_vectors=np.full((1, 3), 0.5, np.float32))
        feed = {
            "text": np.full((1, 3), 0.5, np.float32),
            "numeric": np.array([[np.interp(2.5, [1, 2, 5], [-1, 0, 1]), 0]], np.float32),
            "categories": np.array([[1]]),
        }
        tower = onnxruntime.InferenceSession((path / "item_tower.onnx").read_bytes())
        history, candidate = tower.run(["history", "candidate"], feed)
        state = rec.user_state(["i1", "i2"])
        assert abs(rec.score(state, ["new1"])[0] - (candidate[0] @ state.deep - 1.5)) < 0.05
        found = rec._catalogue.vectors.read(np.array([ITEMS]))
        assert np.abs(found - history).max() < np.abs(history).max() / 200


def test_adding_refuses_what_it_cannot_add(path: Path, tmp_path: Path) -> None:
    with Recommender.open(path) as rec:
        with pytest.raises(DataError, match="'i3' is already in the bundle"):
            rec.add_items({"new": {"title": "x"}, "i3": {"title": "x"}})
        rec.add_items({"new": {"title": "x"}})
        with pytest.raises(DataError, match="'new' is already in the bundle"):
            rec.add_items({"new": {"title": "x"}})
        with pytest.raises(DataError, match="unique and not empty"):
            rec.add_items({"5": {"title": "x"}, 5: {"title": "x"}})
        with pytest.raises(DataError, match="it reads: title, colour, price"):
            rec.add_items({"other": {"weight": 3}})
        with pytest.raises(
            DataError, match=r"shape \(2, 3\); expected finite values of shape \(1, 3\)"
        ):
            rec.add_items({"other": {"title": "x"}}, text_vectors=np.zeros((2, 3), np.float32))
        assert rec.stats()["added_items"] == 1
    bundles.build(tmp_path / "b", tower=False)
    with pytest.raises(BundleError, match=r"no item_tower\.onnx.*ids only"):
        Recommender.open(tmp_path / "b").add_items(NEW)


def test_readers_never_see_half_of_an_addition(path: Path) -> None:
    with Recommender.open(path) as rec:
        expected = bits(rec.score(["i1"], [f"i{row}" for row in range(CANDIDATES)]))
        stop = threading.Event()

        def read() -> int:
            sizes = set()
            while not stop.is_set():
                ranked = rec.recommend(["i1"], 10**4, exclude=None)
                found = dict(zip(ranked.items, bits(ranked.scores), strict=True))
                assert [found[f"i{row}"] for row in range(CANDIDATES)] == expected
                sizes.add(len(ranked.items))
            return len([size for size in sizes if (size - CANDIDATES) % 5])

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            for batch in range(10):
                rec.add_items({f"n{batch}-{i}": {"title": f"word{i}"} for i in range(5)})
            stop.set()
            assert [reader.result() for reader in readers] == [0, 0, 0]


def test_threads_agree(path: Path) -> None:
    with Recommender.open(path, cache=4) as rec:
        names = [f"i{row}" for row in range(CANDIDATES)]
        users = [[f"i{row}", f"i{row + 1}"] for row in range(12)]
        expected = [bits(rec.score(user, names)) for user in users]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: bits(rec.score(users[at % 12], names)), range(400)))
        assert found == [expected[at % 12] for at in range(400)]


def test_a_fork_after_open_works(path: Path) -> None:
    code = f"""
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from tlrec_edge import Recommender
rec = Recommender.open({str(path)!r}, cache=0)
rec.add_items({{"n": {{"title": "mug"}}}})
expected = rec.score(["i1", "n"], ["i2", "i3"]).tobytes()
stop = threading.Event()
busy = threading.Thread(target=lambda: [rec.score(["i1"], ["i2"]) for _ in iter(stop.is_set, True)])
busy.start()
for _ in range(5):
    child = os.fork()
    if not child:
        rec.add_items({{"m": {{"title": "jug"}}}})
        os._exit(0 if rec.score(["i1", "n"], ["i2", "i3"]).tobytes() == expected else 9)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
busy.join()
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        cwd=Path(tlrec_edge.__file__).parents[1],
    )


def test_a_server_imports_nothing_heavy(path: Path) -> None:
    code = f"""
import sys
import tlrec_edge
with tlrec_edge.Recommender.open({str(path)!r}) as rec:
    rec.score(["i1"], ["i2"])
    rec.recommend(["i1"])
    rec.add_items({{"n": {{"title": "mug"}}}})
heavy = {{"torch", "pandas", "onnx", "scipy", "pyarrow", "matplotlib", "click", "rich"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        cwd=Path(tlrec_edge.__file__).parents[1],
    )


def test_closing_and_bad_options(path: Path) -> None:
    rec = Recommender.open(path)
    rec.close()
    with pytest.raises(BundleError, match="is closed"):
        rec.score(["i1"], ["i2"])
    for options in (
        {"unknown": "x"},
        {"threads": 0},
        {"cache": -1},
        {"threads": "2"},
        {"cache": None},
        {"verify": "x"},
    ):
        with pytest.raises(ArgumentError, match="expected"):
            Recommender.open(path, **options)  # type: ignore[arg-type]  # what is tested


def test_onnxruntime_gets_one_thread(rec: Recommender) -> None:
    before = len(os.listdir("/proc/self/task"))
    rec._builder.encoder.reload()
    assert len(os.listdir("/proc/self/task")) <= before
