"""Items added at run time score, rank and occur in histories like the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from helpers import bundles
from helpers.scores import CANDIDATES, ITEMS, bits
from tlrec_edge import BundleError, DataError, Recommender

NEW: dict[str | int, dict[str, object]] = {
    "new1": {"title": "red mug", "colour": "red", "price": 2.5},
    "new2": {"title": "blue jug", "colour": "green", "price": float("nan")},
    7: {"name": "Seven", "colour": None},
}


def test_added_items_are_scored_ranked_and_known_in_histories(path: Path) -> None:
    with Recommender.open(path) as rec:
        before = rec.score(["i1", "new1"], ["i5", "new1"])
        rec.add_items(NEW)
        candidates = ["i5", "new2", "i6", "7", "new1"]
        found = rec.score(["i1"], candidates)
        assert bits(found[:1]) == bits(before[:1])
        assert found[4] != before[1]
        ranked = rec.recommend(["i1"], 100)
        assert (len(rec), len(ranked.items), rec.stats()["added_items"]) == (63, 62, 3)
        scores = dict(zip(ranked.items, bits(ranked.scores), strict=True))
        assert [scores[item] for item in candidates] == bits(found)
        assert dict(zip(ranked.items, ranked.names, strict=True))["7"] == "Seven"
        assert dict(zip(ranked.items, ranked.names, strict=True))["new1"] == "red mug"
        assert bits(rec.score(["i1", "new1"], ["i5"])) != bits(before[:1])
        assert "new1" not in rec.recommend(["i1", "new1"], 100).items
        assert set(rec.recommend(["i1"], 9, allow=["new1", "i3"]).items) == {"new1", "i3"}
        assert len(rec.similar("new1", 100).items) == 62
        rec.add_items({"later": {"title": "mug"}})
        assert bits(rec.score(["i1"], candidates)) == bits(found)
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
        added = rec._open().catalogue.vectors.read(np.array([ITEMS]))
        assert np.abs(added - history).max() < np.abs(history).max() / 200


def test_items_that_cannot_be_added_are_refused(path: Path, tmp_path: Path) -> None:
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
