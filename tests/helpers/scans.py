"""What an exhaustive search finds in a synthetic bundle."""

from __future__ import annotations

import numpy as np

from tlrec_edge import Recommender
from tlrec_edge.core.topk import top_k
from tlrec_edge.search.user_state import UserState

ITEMS = 20_000


def full_scan(rec: Recommender, state: UserState, k: int) -> tuple[list[int], list[float]]:
    scores = rec._catalogue.score_all(state)
    scores[state.seen[state.seen < ITEMS]] = -np.inf
    best = top_k(scores, k)
    return best.tolist(), scores[best].tolist()
