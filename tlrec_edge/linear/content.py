"""Similarity of items by their content: the words of their texts, and their categories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tlrec_edge.core.features import hash_tokens
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.matrices import faded_history
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.types import Ints, Longs, Scores

BUCKETS = 1 << 18
"""Buckets of hashed words."""


@dataclass(frozen=True)
class ContentSettings:
    """Settings of content similarity.

    Attributes:
        category_weight: share of the categories in the similarity; the rest is that of the texts.
        decay: factor by which an item of the history counts less than the one after it.
    """

    category_weight: float = 0.5
    decay: float = 1.0


class ItemContent(NamedTuple):
    """TF-IDF of the items' words and categories: rows of length 1, or 0 without content."""

    texts: sp.csr_array
    """(items, BUCKETS)."""
    categories: sp.csr_array
    """(items, categories of all columns)."""


@lru_cache(maxsize=1)
def item_content(dataset: Dataset) -> ItemContent:
    """Return the content of a dataset's items. No interaction is read."""
    table = dataset.features
    texts = [" ".join(row) for row in zip(*table.text.values(), strict=True)]
    bucket, row = hash_tokens(texts, BUCKETS)
    code_of: dict[tuple[str, str], int] = {}
    item, code = [], []
    for column, values in table.categorical.items():
        canonical = table.aliases.get(column, {})
        for i, value in enumerate(values):
            if value:
                item.append(i)
                code.append(code_of.setdefault((column, canonical.get(value, value)), len(code_of)))
    return ItemContent(
        _tf_idf(row, bucket, (len(table), BUCKETS)),
        _tf_idf(np.array(item, np.int64), np.array(code, np.int64), (len(table), len(code_of))),
    )


def _tf_idf(row: Longs, column: Longs, shape: tuple[int, int]) -> sp.csr_array:
    counts = sp.csr_array((np.ones(len(row)), (row, column)), shape=shape)
    counts.sum_duplicates()
    document_frequency = np.bincount(counts.indices, minlength=shape[1])
    idf = np.log(shape[0] / np.maximum(document_frequency, 1)) + 1.0
    counts.data = (1.0 + np.log(counts.data)) * idf[counts.indices]
    norm = np.sqrt(counts.power(2).sum(1))
    counts.data /= np.repeat(norm, np.diff(counts.indptr))
    return counts.astype(np.float32)


def content_settings(dataset: Dataset) -> Sequence[ContentSettings]:
    """Return the settings to try; none if the items have neither texts nor categories."""
    content = item_content(dataset)
    if content.texts.nnz and content.categories.nnz:
        weights = [0.5, 0.0, 1.0]
    else:
        weights = [0.0] * bool(content.texts.nnz) + [1.0] * bool(content.categories.nnz)
    return [ContentSettings(weight, decay) for weight in weights for decay in (1.0, 0.9)]


def content_scorers(dataset: Dataset, task: Task) -> Callable[[ContentSettings], Scorer]:
    """Return the scorer for each setting: the similarity to the mean content of the history."""
    content = item_content(dataset)

    def scorer(setting: ContentSettings) -> Scorer:
        weight = setting.category_weight
        parts = [
            np.float32(share**0.5) * part
            for share, part in ((1 - weight, content.texts), (weight, content.categories))
            if share
        ]
        vectors = sp.csr_array(sp.hstack(parts, format="csr"))
        candidates = sp.csr_array(vectors[task.candidates].T)
        history = faded_history(task, setting.decay)

        def score(users: Ints, columns: Columns = ALL) -> Scores:
            similarity: Any = history[users] @ vectors @ candidates
            scores: Scores = similarity[:, columns].toarray()
            return scores

        return score

    return scorer
