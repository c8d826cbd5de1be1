"""The best candidates are those of a full sort, whatever is allowed or excluded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import bundles
from helpers.scores import CANDIDATES, ITEMS
from tlrec_edge import DataError, Recommender, UnknownIdError
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bundle.reader import Bundle, write_bundle

ids_of_histories = st.lists(st.integers(0, ITEMS + 5).map(lambda row: f"i{row}"), max_size=12)
in_one_fixture = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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
    allowed = [name for name in ranked if name not in excluded]
    assert list(rec.recommend(history, k, exclude=excluded).items) == allowed[:k]


def test_of_equal_scores_the_lower_row_comes_first(tmp_path: Path) -> None:
    small = bundles.Small(tower=False)
    arrays = bundles.tables(small, np.random.default_rng(0))
    arrays["candidate_bias"] = np.repeat(np.array([1, 2], np.float32), 30)
    strings, encoder = {"item_ids": small.item_ids()}, pooling_encoder(8, 6, 0)
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


def test_items_beyond_max_history_are_excluded_too(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", max_history=3)
    history = [f"i{row}" for row in range(20)]
    found = Recommender.open(tmp_path / "b").recommend(history, 100)
    assert not set(found.items) & set(history)
    assert len(found.items) == 40


def test_similar_items_have_the_nearest_vectors(rec: Recommender, path: Path) -> None:
    rows = Bundle.open(path).array("history_rows").astype(np.float64)
    for item in (4, 70):  # a candidate, and an item that occurs in histories only
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
