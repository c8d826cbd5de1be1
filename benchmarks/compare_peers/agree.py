"""Whether an answer is right: every contender is asked before any is timed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .contender import Answer

Floats = NDArray[np.float32]
_EQUAL = 1e-5
"""Scores that are this close, as a share of the spread, are equal: floats are added up in another order."""


class Disagreement(Exception):
    """A contender's answer is not the right one."""


def check_scores(answer: Answer, truth: Floats, tolerance: float) -> float:
    """Return the largest error over the spread of all scores, NaN for those not known. Raises Disagreement above
    ``tolerance``."""
    if not len(answer.rows) or len(answer.rows) != len(answer.scores):
        raise Disagreement(f"{len(answer.rows)} items with {len(answer.scores)} scores")
    error = float(
        np.abs(answer.scores - truth[answer.rows]).max() / max(float(np.nanstd(truth)), 1e-12)
    )
    if not error <= tolerance:
        raise Disagreement(
            f"a score is off by {error:.2g} of the spread, expected at most {tolerance:g}"
        )
    return error


def recall(rows: NDArray[np.integer], truth: Floats, k: int) -> float:
    """Return the share of k places filled by an item that belongs there; one that ties with the last does."""
    least = np.partition(truth, len(truth) - k)[len(truth) - k] - _EQUAL * truth.std()
    found = np.unique(rows[rows >= 0])[:k]
    return float((truth[found] >= least).sum() / k)


def check_best(answer: Answer, truth: Floats, k: int) -> None:
    """Raise Disagreement unless these are the k best, which is what an exact contender must return."""
    share = recall(answer.rows, truth, min(k, len(truth)))
    if share < 1.0:
        raise Disagreement(f"recall@{k} is {share:.3f}, expected the {k} best")
