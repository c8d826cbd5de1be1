"""Check answers: a contender is timed only if its scores and its best items are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .contender import Answer, Floats

_EQUAL = 1e-5
"""Scores that differ by less, in standard deviations of all scores, are equal: sums of floats
depend on the order of their terms."""


class Disagreement(Exception):
    """A contender's answer is wrong."""


def check_scores(answer: Answer, truth: Floats, tolerance: float) -> float:
    """Return the largest error, in standard deviations of all scores.

    ``truth`` holds the score of every item, NaN if it is unknown. Raises Disagreement if the error
    is above ``tolerance``.
    """
    if not len(answer.rows) or len(answer.rows) != len(answer.scores):
        raise Disagreement(f"{len(answer.rows)} items with {len(answer.scores)} scores")
    deviation = max(float(np.nanstd(truth)), 1e-12)
    error = float(np.abs(answer.scores - truth[answer.rows]).max() / deviation)
    if not error <= tolerance:
        raise Disagreement(
            f"a score is off by {error:.2g} standard deviations, more than {tolerance:g}"
        )
    return error


def recall(rows: NDArray[np.integer], truth: Floats, k: int) -> float:
    """Return the share of the k best items that were found; ties with the k-th item count."""
    kth_score = np.partition(truth, len(truth) - k)[len(truth) - k]
    found = np.unique(rows[rows >= 0])[:k]
    return float((truth[found] >= kth_score - _EQUAL * truth.std()).sum() / k)


def check_best(answer: Answer, truth: Floats, k: int) -> None:
    """Check an exact search. Raises Disagreement if an item is not one of the k best."""
    share = recall(answer.rows, truth, min(k, len(truth)))
    if share < 1.0:
        raise Disagreement(f"recall@{k} is {share:.3f}, expected the {k} best")
