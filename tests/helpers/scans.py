"""What an exhaustive search finds in a synthetic bundle, to compare the indexes with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlrec_edge import ItemRows, Recommender
from tlrec_edge.core.topk import top_k
from tlrec_edge.search.user_state import UserState

ITEMS = 20_000
IDS = [f"SKU{row:08d}" for row in range(ITEMS)]


def full_scan(rec: Recommender, state: UserState, k: int) -> tuple[list[str], list[float]]:
    """Return the k best items and their scores, from the scores of all items."""
    scores = rec.score(state, ItemRows(np.arange(ITEMS)))
    scores[state.seen[state.seen < ITEMS]] = -np.inf
    best = top_k(scores, k)
    id_of_row = dict(zip(rec.rows(IDS), IDS, strict=True))
    return [id_of_row[row] for row in best.tolist()], scores[best].tolist()


def found(rec: Recommender, state: UserState, k: int) -> tuple[list[str], list[float]]:
    """Return what ``recommend`` finds, to be compared with ``full_scan``."""
    result = rec.recommend(state, k)
    return list(result.items), result.scores.tolist()


def random_state(rec: Recommender, rng: np.random.Generator, length: int = 30) -> UserState:
    """Return the state of a history of random items."""
    return rec.user_state(rec.rows(random_ids(rng, length)))


def random_ids(rng: np.random.Generator, length: int) -> Sequence[str]:
    return [IDS[row] for row in rng.integers(0, ITEMS, length)]
