"""Logs of a few rows, written out, and the training examples made from them."""

from __future__ import annotations

import numpy as np

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.train.examples import DAY, Examples

LENGTH, AGE_BUCKETS = 4, 12


def log_of(rows: list[tuple[int, int, int]]) -> Interactions:
    """Rows of (user, item, day), sorted by user and day."""
    user, item, day = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    n, zero = len(rows), np.zeros(len(rows), np.int32)
    return Interactions(
        user,
        item,
        item // 10,
        zero + 3,
        np.ones(n, np.float32),
        day.astype(np.int64) * DAY,
        np.arange(n, dtype=np.int32),
    )


def examples(
    log: Interactions,
    unit: str = "basket",
    target_dropout: float = 0.0,
    first_only: bool = False,
) -> Examples:
    column = np.where(np.arange(20) >= 10, np.arange(20) - 10, -1).astype(np.int32)
    rows = np.arange(20, dtype=np.int32)
    in_target = log.domain == 1
    return Examples(
        log, rows, column, in_target, LENGTH, AGE_BUCKETS, unit, target_dropout, first_only
    )
