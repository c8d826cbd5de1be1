"""Check that scores have the same bits however they are requested: `check_bits.py BUNDLE...`.

`test_bits` makes the bundles and runs this in fresh processes, because BLAS picks its kernels when
numpy is imported. It prints a hash of the answers that must be the same in all of them: those for
stored users, whose states no encoder computes.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge import History, Recommender
from tlrec_edge.runtime.arguments import User

USERS = ("ann", "bob", "cat")
"""Users whose states are in the bundle."""
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


def check_search(rec: Recommender) -> None:
    """Compare the answers of a search index with a full scan, bit for bit."""
    names = rec.recommend([], len(rec)).items
    for length in (1, 5, 40):
        state = rec.user_state(names[7 : 7 + length])
        for k in (1, 10, 200):
            found = rec.recommend(state, k, exhaustive=True)
            assert found.scores.tolist() == rec.score(state, list(found.items)).tolist(), "search"
            scores = rec.score(state, list(names))
            scores[np.isin(names, names[7 : 7 + length])] = -np.inf
            assert found.scores.tolist() == np.sort(scores)[::-1][:k].tolist(), "full scan"
            probed = rec.recommend(state, k)
            assert probed.scores.tolist() == rec.score(state, list(probed.items)).tolist(), "IVF"


def stored(rec: Recommender, names: list[str]) -> bytes:
    """Return the answers for stored users and an unknown one, and similarities, as bytes."""
    users = [*USERS, "nobody"]
    answers = [rec.score(user, names) for user in users]
    answers += [rec.recommend(user, 20, exclude=None).scores for user in users]
    answers += [rec.score_pairs(users, names[: len(users)])]
    answers += [rec.similar(name, len(rec)).scores for name in names[:10]]
    return b"".join(scores.tobytes() for scores in answers)


def similarities(rec: Recommender, names: list[str]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for name in names:
        near = rec.similar(name, len(rec))
        found |= {
            (name, other): score
            for other, score in zip(near.items, near.scores.tolist(), strict=True)
        }
    return found


def check(path: Path) -> bytes:
    """Check all promises for a bundle, and return what must be the same in every process."""
    together, apart, backwards = (Recommender.open(path) for _ in range(3))
    assert together.deterministic
    known = [f"i{row}" for row in range(len(together))]
    if not together.has_user(USERS[0]):  # a synthetic bundle with search indexes
        check_search(together)
        return b""
    answers = stored(together, known)
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
    return answers


if __name__ == "__main__":
    answers = [check(Path(folder)) for folder in sys.argv[1:]]
    sys.stdout.write(hashlib.sha256(b"".join(answers)).hexdigest())
