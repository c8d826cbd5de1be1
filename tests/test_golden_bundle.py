"""Every later version must read the golden bundle and score it with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tlrec_edge import History, Recommender
from tlrec_edge.bundle import Bundle

from . import make_golden_bundle as golden

PINNED = json.loads((Path(__file__).parent / "data" / "golden_scores.json").read_text("utf-8"))


def test_it_is_whole() -> None:
    bundle = Bundle.open(golden.BUNDLE, verify="full")
    assert bundle.strings("category_names").take(bundle.array("item_category")[[1, 2, 3]]) == [
        "Küche",
        "Garten",
        "玩具",
    ]


@pytest.mark.parametrize("name", PINNED)
def test_scores_are_pinned_bit_for_bit(name: str) -> None:
    with Recommender.open(golden.BUNDLE) as rec:
        user = name.removeprefix("user ") if name.startswith("user ") else History(**golden.HISTORIES[name])
        assert rec.exact
        found = rec.score(user, golden.IDS[:22])
        assert [value.hex() for value in found.tolist()] == PINNED[name]
        ranked = rec.recommend(user, 22, exclude=None)
        expected = {item: float.fromhex(value) for item, value in zip(golden.IDS, PINNED[name], strict=False)}
        assert dict(zip(ranked.items, ranked.scores.tolist(), strict=True)) == expected


def test_no_score_hangs_on_the_last_bit_of_the_encoder() -> None:
    assert golden.rounding_margin() >= golden.MARGIN


def test_cold_items_still_run() -> None:
    with Recommender.open(golden.BUNDLE) as rec:
        rec.add_items({"new": {"title": "red mug", "colour": "red", "price": 2}})
        assert np.isfinite(rec.score(["new", "item-1"], ["new", "item-2"])).all()
