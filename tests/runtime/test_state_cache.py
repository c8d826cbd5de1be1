"""The cache of user states is bounded and counted."""

from __future__ import annotations

from pathlib import Path

from helpers.scores import bits
from tlrec_edge import Recommender


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
