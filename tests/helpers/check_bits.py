"""Check that scores have the same bits however they are requested: `check_bits.py BUNDLE...`.

`test_bits` makes the bundle and runs this in fresh processes, because BLAS picks its kernels when
numpy is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge import History, Recommender
from tlrec_edge.runtime.arguments import User

WORDS = 64
"""Width of the vectors that new items are added by."""
NEW: dict[str, dict[str, Any]] = {
    f"new{i}": {"title": "mug", "price": i % 5, "colour": "red"} for i in range(9)
}
SIZES = (1, 2, 3, 5, 8, 17, 64)


def text_vectors() -> np.ndarray:
    """Return one vector for each new item; two have no text, and score by their own rows."""
    vectors = np.random.default_rng(1).normal(size=(len(NEW), WORDS)).astype(np.float32)
    vectors[[2, 7]] = 0.0
    return vectors


def add(rec: Recommender, numbers: Iterable[int]) -> None:
    at = list(numbers)
    names = list(NEW)
    rec.add_items({names[i]: NEW[names[i]] for i in at}, text_vectors()[at])


def check_scores(rec: Recommender, user: User, names: list[str]) -> dict[str, float]:
    """Compare a user's scores alone, in batches, in other orders and calls; return them."""
    rng, state = np.random.default_rng(0), rec.user_state(user)
    whole = dict(zip(names, rec.score(state, names).tolist(), strict=True))
    for size in SIZES:
        order = rng.permutation(names).tolist()
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            for found in (rec.score(state, batch), rec.score_pairs([state] * len(batch), batch)):
                assert found.tolist() == [whole[name] for name in batch], (
                    f"score, batches of {size}"
                )
        ranked = rec.recommend(
            state, size, exclude=None, allow=[name for name in batch if name != "unknown"]
        )
        assert ranked.scores.tolist() == [whole[name] for name in ranked.items], "recommend, allow"
    ranked = rec.recommend(state, len(rec), exclude=None)
    assert len(ranked.items) == len(rec)
    assert ranked.scores.tolist() == [whole[name] for name in ranked.items], "recommend"
    return whole


def similarities(rec: Recommender, names: list[str]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for name in names:
        near = rec.similar(name, len(rec))
        found |= {
            (name, other): score
            for other, score in zip(near.items, near.scores.tolist(), strict=True)
        }
    return found


def check(path: Path) -> None:
    together, apart, backwards = (Recommender.open(path) for _ in range(3))
    assert together.deterministic
    known = [f"i{row}" for row in range(len(together))]
    before = similarities(together, known[:40])
    add(together, range(len(NEW)))
    for i in range(len(NEW)):
        add(apart, [i])
    add(backwards, reversed(range(len(NEW))))
    names = [*known, *NEW, "unknown"]
    histories: list[User] = [
        ["i3"],
        [],
        ["unknown"],
        ["i1", "new1", "new2"],
        History(["i5", "i70", "i2"], ["click", "cart", "purchase"]),
        [f"i{row}" for row in range(9)],
    ]
    for user in histories:
        scores = check_scores(together, user, names)
        for other in (apart, backwards):
            found = dict(zip(names, other.score(user, names).tolist(), strict=True))
            assert found == scores, "items added together and apart"
    items = [*known[:40], *NEW]
    near = similarities(together, items)
    assert all(near[pair] == score for pair, score in before.items()), (
        "similar, before and after items were added"
    )
    assert all(near[b, a] == near[a, b] for a in items for b in items if a != b), (
        "similar, both ways"
    )
    for other in (apart, backwards):
        assert similarities(other, items) == near, "similar, items added together and apart"


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        check(Path(folder))
