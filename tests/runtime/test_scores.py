"""Scores follow the bundle format, and have the same bits alone and in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import bundles
from helpers.scores import CANDIDATES, ITEMS, bits, reference
from tlrec_edge import DataError, History, Recommender, UnknownIdError
from tlrec_edge.bundle.format import Storage
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.runtime.arguments import User

ids_of_candidates = st.lists(
    st.integers(0, CANDIDATES - 1).map(lambda row: f"i{row}"), min_size=1, max_size=200
)


ids_of_histories = st.lists(st.integers(0, ITEMS + 5).map(lambda row: f"i{row}"), max_size=12)


in_one_fixture = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


HISTORIES = {
    "one": History(["i3"]),
    "short": History(["i3", "i70", "i3"]),
    "long": History([f"i{row % 80}" for row in range(0, 300, 7)]),
    "some unknown": History(["i3", "who", "i9"]),
    "events": History(["i1", "i2", "i3"], events=["view", "purchase", 2]),
    "times": History(["i1", "i2", "i3"], timestamps=[0, 86_400 * 3, 86_400 * 40]),
    "now": History(["i1", "i2"], events=["cart", "click"], timestamps=[5, 10], now=86_400 * 500),
    "empty": History([]),
    "all unknown": History(["who", "what"]),
}


@pytest.mark.parametrize("case", HISTORIES)
@pytest.mark.parametrize("tables", ["int8", "float32", "int6", "int4", "mixed"])
def test_unrounded_scores_equal_the_reference(tmp_path: Path, case: str, tables: str) -> None:
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
def test_a_sum_of_thousands_of_weights_is_the_same_for_one_candidate_as_for_all(
    tmp_path: Path, weights: str, repeat: float
) -> None:
    path = tmp_path / "b"
    bundles.build(path, candidates=300, storage=Storage(*4 * ("int8",), weights))
    bundles.edit_manifest(path, lambda manifest: manifest.update(repeat=repeat))
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


@given(history=ids_of_histories, candidates=ids_of_candidates, data=st.data())
@in_one_fixture
def test_a_pair_has_the_same_bits_alone_and_in_any_batch(
    rec: Recommender, history: list[str], candidates: list[str], data: st.DataObject
) -> None:
    state = rec.user_state(history)
    together = dict(zip(candidates, bits(rec.score(state, candidates)), strict=True))
    shuffled = data.draw(st.permutations(candidates))
    assert bits(rec.score(state, shuffled)) == [together[item] for item in shuffled]
    alone = shuffled[0]
    assert bits(rec.score(state, [alone])) == [together[alone]]
    assert bits(rec.score_pairs([state] * len(candidates), candidates)) == [
        together[item] for item in candidates
    ]
    assert bits(rec.score_pairs([history, ["i5"]], [alone, alone]))[0] == together[alone]
    ranked = rec.recommend(state, CANDIDATES, exclude=None)
    found = dict(zip(ranked.items, bits(ranked.scores), strict=True))
    assert {item: found[item] for item in candidates} == together
    allowed = rec.recommend(state, 300, exclude=None, allow=candidates)
    assert dict(zip(allowed.items, bits(allowed.scores), strict=True)) == together


def test_pairs_accept_ids_histories_lists_and_states(rec: Recommender) -> None:
    state = rec.user_state(["i1", "i2"])
    users: list[User] = ["ann", History(["i1", "i2"]), ["i1", "i2"], state, "nobody", "ann"]
    found = rec.score_pairs(users, ["i9"] * 5 + ["i10"])
    assert len(set(bits(found[1:4]))) == 1
    assert bits(found[[0, 5]]) == bits(rec.score("ann", ["i9", "i10"]))
    in_array = np.array(["ann", "ann"])
    of_array = rec.score_pairs(in_array, np.array(["i9", "i10"]))  # type: ignore[arg-type]  # an array works
    assert bits(of_array) == bits(found[[0, 5]])
    of_number = rec.score(np.int64(3), ["i9"])  # type: ignore[arg-type]  # a number of numpy works
    assert bits(of_number) == bits(rec.score("nobody", ["i9"]))
    with pytest.raises(DataError, match="2 users and 1 item"):
        rec.score_pairs(["ann", "bob"], ["i1"])
    assert rec.score_pairs([], []).shape == (0,)
    assert rec.score(["i1"], []).shape == (0,)
    with pytest.raises(
        DataError, match="candidates: expected a list of item ids, got the string 'i2'"
    ):
        rec.score(["i1"], "i2")


def test_unknown_candidates_are_scored_by_the_policy(path: Path) -> None:
    candidates = ["i5", "who", "i75"]  # i75 occurs in histories only
    with Recommender.open(path) as rec:
        found = rec.score(["i1"], candidates)
        assert found[1:].tolist() == [-1.5, -1.5]
        assert rec.stats()["unknown_candidates"] == 2
    with Recommender.open(path, unknown="nan") as rec:
        assert np.isnan(rec.score(["i1"], candidates)).tolist() == [False, True, True]
        assert np.isnan(rec.score_pairs(["ann", "nobody"], ["i1", "i1"])).tolist() == [False, True]
    with Recommender.open(path, unknown="error") as rec:
        with pytest.raises(UnknownIdError, match="'who' is not a candidate"):
            rec.score(["i1"], candidates)
        with pytest.raises(UnknownIdError, match="'nobody' is not in the bundle; pass the user's"):
            rec.score_pairs(["nobody"], ["i1"])


def test_an_unknown_user_is_scored_by_popularity(rec: Recommender, path: Path) -> None:
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
