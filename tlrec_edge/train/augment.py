"""Random changes to training histories, so that a model relies on no single interaction.

The ways to change a history follow CL4SRec (arXiv 2010.14395), without its contrastive loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tlrec_edge.types import Bools, Longs

CROP = 0.6
"""Share of a history that a crop keeps."""
MASK = 0.3
"""Share of a history that is masked."""
REORDER = 0.3
"""Share of a history that is shuffled."""
DROP = 0.2
"""Probability that an item is dropped."""


class HistoryBatch(NamedTuple):
    """Histories as arrays of shape (batch, length), the most recent interaction last."""

    item: Longs
    """Item rows of the model."""
    event: Longs
    """Event numbers."""
    age: Longs
    """Age buckets, -1 without time."""
    present: Bools
    """Whether a position holds an interaction or padding."""

    def gather(self, index: Longs) -> HistoryBatch:
        """Return the positions ``index`` (batch, length) of each row."""
        return HistoryBatch._make(np.take_along_axis(part, index, 1) for part in self)


def augment(history: HistoryBatch, names: Sequence[str], rng: np.random.Generator) -> HistoryBatch:
    """Change each history in one way, drawn from ``names``.

    No history becomes empty. Without names nothing is drawn from ``rng``.
    """
    if not names:
        return history
    result = HistoryBatch._make(part.copy() for part in history)
    way = rng.integers(len(names), size=len(history.present))
    for number, name in enumerate(names):
        rows = np.flatnonzero(way == number)
        changed = AUGMENTATIONS[name](HistoryBatch._make(part[rows] for part in history), rng)
        for part, values in zip(result, changed, strict=True):
            part[rows] = values
    return result


def crop(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Keep a run of CROP of the items, and move it to the end, to which histories are aligned."""
    cropped = history._replace(present=_random_run(history.present, CROP, rng))
    return cropped.gather(np.argsort(cropped.present, axis=1, kind="stable"))


def mask(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Remove MASK of the items, at random positions."""
    chance = np.where(history.present, rng.random(history.present.shape), 2.0)
    rank = np.argsort(np.argsort(chance, axis=1), axis=1)
    masked = np.floor(MASK * history.present.sum(1, keepdims=True))
    return history._replace(present=history.present & (rank >= masked))


def reorder(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Shuffle the items of a run of REORDER of the history."""
    run = _random_run(history.present, REORDER, rng)
    position = np.broadcast_to(np.arange(run.shape[1], dtype=np.float64), run.shape)
    after_run = position + run.shape[1]
    # Both sort the run to the front and leave the rest as it is: once in order, once shuffled.
    in_order = np.argsort(np.where(run, position, after_run), axis=1)
    shuffled = np.argsort(np.where(run, rng.random(run.shape), after_run), axis=1)
    index = np.empty_like(in_order)
    np.put_along_axis(index, in_order, shuffled, 1)
    return history.gather(index)


def token_dropout(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Drop each item with probability DROP, but never all."""
    chance = np.where(history.present, rng.random(history.present.shape), -1.0)
    is_luckiest = chance == chance.max(1, keepdims=True)
    return history._replace(present=history.present & ((chance >= DROP) | is_luckiest))


def _random_run(present: Bools, share: float, rng: np.random.Generator) -> Bools:
    """Mark a random run of ``share`` of the present items, at least one; (batch, length)."""
    count = present.sum(1, keepdims=True)
    size = np.maximum(1, np.floor(share * count))
    first = np.floor(rng.random(count.shape) * (count - size + 1))
    rank = np.cumsum(present, 1) - 1
    return np.asarray(present & (rank >= first) & (rank < first + size))


AUGMENTATIONS: dict[str, Callable[[HistoryBatch, np.random.Generator], HistoryBatch]] = {
    "crop": crop,
    "mask": mask,
    "reorder": reorder,
    "token-dropout": token_dropout,
}
