"""Say how far validation rows differ from given test rows, without reading the test's answers."""

from __future__ import annotations

import numpy as np

from tlrec_edge.core.metrics import METRICS, clustered_mean, rank_of_positive
from tlrec_edge.data.task import Tasks, history_lengths
from tlrec_edge.linear.priors import popularity
from tlrec_edge.linear.ranking import make_queries, sample_rows
from tlrec_edge.types import Doubles

MAX_ROWS = 1000
"""Rows of each task that are compared."""
MIN_GAP, MIN_ERRORS = 0.05, 3.0
"""Difference of popularity's NDCG@10, and its multiple of the standard error, that is reported."""
MIN_TIMES = 1.5
"""Times as many interactions before the rows that are reported."""


def validation_notes(tasks: Tasks) -> list[str]:
    """Return what a user should know about the validation rows next to given test rows.

    Popularity's figure can be compared without the test's answers: each validation row's positive
    is ranked by popularity among its own candidates, and among those of a test row. How popular the
    test's positives are remains unknown, so figures that agree do not prove the rows alike.
    """
    notes = [tasks.choose.note] if tasks.choose.note else []
    if not len(tasks.choose.rows) or not len(tasks.final.rows):
        return notes
    own, among_test = _popularity_ndcg(tasks)
    gap = clustered_mean(own - among_test, np.arange(len(own)))
    if abs(gap.mean) >= max(MIN_GAP, MIN_ERRORS * gap.se):
        notes.append(
            f"popularity has NDCG@10 {own.mean():.3f} on the validation rows, and would have "
            f"{among_test.mean():.3f} among the test rows' candidates: what is chosen on the "
            "validation rows may not suit the test rows"
        )
    lengths = [
        history_lengths(task, task.rows).sum(1).mean() for task in (tasks.choose, tasks.final)
    ]
    if max(lengths) > MIN_TIMES * min(lengths):
        notes.append(
            f"histories have {lengths[0]:.1f} interactions on average before validation rows and "
            f"{lengths[1]:.1f} before test rows"
        )
    return notes


def _popularity_ndcg(tasks: Tasks) -> tuple[Doubles, Doubles]:
    """Return popularity's NDCG@10 for each positive of the validation rows, (m,) twice.

    First among the row's own candidates, then among all candidates of a test row drawn for it.
    """
    buyers = popularity(tasks.choose)
    choose, final = sample_rows(tasks.choose, MAX_ROWS), sample_rows(tasks.final, MAX_ROWS)
    queries = make_queries(choose, choose.rows)
    own = queries.gather_items(buyers)
    test = make_queries(final, final.rows)
    drawn = np.random.default_rng(0).integers(len(final.rows), size=len(choose.rows))
    scores = np.concatenate([own[:, :1], test.gather_items(buyers)[drawn]], 1)
    valid = np.concatenate([np.ones((len(drawn), 1), bool), test.valid[drawn]], 1)
    ranks = rank_of_positive(own, queries.valid), rank_of_positive(scores, valid)
    return METRICS["ndcg"](ranks[0], 10), METRICS["ndcg"](ranks[1], 10)
