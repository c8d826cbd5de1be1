"""The items that a model knows, in the order of its tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.types import Ints


@dataclass(frozen=True)
class Vocabulary:
    """The N item rows of a model: the candidates first, then items known only as history.

    Attributes:
        ids: the item ids.
        candidates: the number of candidates.
        dataset_rows: (N,) the items' rows in the dataset.
        rows: from rows in the dataset to item rows, -1 for items that the model does not know.
    """

    ids: tuple[str, ...]
    candidates: int
    dataset_rows: Ints
    rows: Ints


def build_vocabulary(dataset: Dataset, task: Task, min_buyers: int = 1) -> Vocabulary:
    """Take the candidates, then every other item with ``min_buyers`` users in the training data."""
    pairs = np.unique(task.train.user.astype(np.int64) * task.n_items + task.train.item)
    buyers = np.bincount(pairs % task.n_items, minlength=task.n_items)
    others = np.flatnonzero((buyers >= min_buyers) & (task.column < 0))
    order = np.concatenate([task.candidates, others]).astype(np.int32)
    rows = np.full(task.n_items, -1, np.int32)
    rows[order] = np.arange(len(order), dtype=np.int32)
    return Vocabulary(tuple(dataset.items[i] for i in order), len(task.candidates), order, rows)
