"""``top_k`` returns what a full sort would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlrec_edge.core.topk import top_k


def full_sort(scores: np.ndarray, k: int) -> list[int]:
    rows = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    return [row for row in rows if scores[row] > -np.inf][:k]


@given(
    st.lists(st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0]), max_size=700),
    st.integers(1, 800),
)
@settings(max_examples=150)
def test_equals_the_full_sort_with_ties_by_row(values: list[float], k: int) -> None:
    scores = np.array(values, np.float32)
    assert top_k(scores, k).tolist() == full_sort(scores, k)


@pytest.mark.parametrize("n", [1, 127, 128, 129, 5000])
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_equals_the_full_sort_on_random_scores(n: int, k: int) -> None:
    scores = np.random.default_rng(n).normal(size=n).astype(np.float32)
    assert top_k(scores, k).tolist() == full_sort(scores, k)


def test_the_last_partial_block_counts() -> None:
    scores = np.zeros(1000, np.float32)
    scores[999] = 1.0
    assert top_k(scores, 2).tolist() == [999, 0]
