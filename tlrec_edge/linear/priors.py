"""Scores of items that are the same for every user: popularity, and the item table's sales."""

from __future__ import annotations

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.types import Floats, Ints

SECONDS_PER_DAY = 86_400
HALF_LIVES = (180.0, 90.0, 45.0, 20.0)
"""Half-lives of popularity to try, in days: a purchase of that age counts half."""


def popularity(task: Task, half_life: float | None = None) -> Floats:
    """Count each candidate's distinct buyers in the target. Shape (C,).

    With ``half_life`` (days) a buyer counts ``0.5 ** (age / half_life)``. The age is the number of
    days from the buyer's last purchase of the item to the end of the training data.
    """
    log = task.train.select(task.in_target(task.train))
    pair = log.user.astype(np.int64) * task.n_items + log.item
    # A user's rows are in order of time, so the first of a pair from the end is its last purchase.
    last = len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]
    age = (log.time.max(initial=0) - log.time[last]) / SECONDS_PER_DAY
    weight = np.ones(len(last)) if half_life is None else 0.5 ** (age / half_life)
    buyers = np.bincount(log.item[last], weight, task.n_items)
    return buyers[task.candidates].astype(np.float32)


def log_popularity(task: Task, half_life: float | None = None) -> Floats:
    """Return the centred ``log1p`` of each candidate's ``popularity``. Shape (C,)."""
    log_count = np.log1p(popularity(task, half_life))
    centred: Floats = (log_count - log_count.mean()).astype(np.float32)
    return centred


def decayed_popularity(task: Task) -> dict[float, Floats]:
    """Return the log popularity for each of HALF_LIVES.

    Empty if the data has no times, or times that are an order only: steps are not days.
    """
    half_lives = HALF_LIVES if task.train.has_dates else ()
    return {days: log_popularity(task, days) for days in half_lives}


def sales_prior(dataset: Dataset, rows: Ints) -> Floats:
    """Return the centred log of the sales of the items in ``rows``. Shape (n,).

    An item of unknown sales gets 0, the mean of the others. Without a sales column all are 0.
    """
    if dataset.features.sales is None:
        return np.zeros(len(rows), np.float32)
    sales = dataset.features.sales[rows]
    known = np.isfinite(sales)
    log_sales = np.log1p(np.maximum(np.where(known, sales, 0.0), 0.0))
    mean = log_sales.sum() / max(known.sum(), 1)
    centred: Floats = np.where(known, log_sales - mean, 0.0)
    return centred.astype(np.float32)
