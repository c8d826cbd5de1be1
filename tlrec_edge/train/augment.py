"""Histories disturbed in training, so that a model leans on no single interaction (CL4SRec, arXiv 2010.14395)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Bools

CROP, MASK, REORDER, DROP = 0.6, 0.3, 0.3, 0.2
"""Shares of a history: kept by a crop, masked, put in another order, and each item's chance to be dropped."""


class HistoryBatch(NamedTuple):
    """Item rows, events, age buckets (-1 without time) and presence; all (batch, length), most recent last."""

    item: NDArray[np.int64]
    event: NDArray[np.int64]
    age: NDArray[np.int64]
    present: Bools

    def gather(self, place: NDArray[np.int64]) -> HistoryBatch:
        """Gather positions (batch, length) within each row; events and ages move with their items."""
        return HistoryBatch._make([np.take_along_axis(part, place, 1) for part in self])


def augment(history: HistoryBatch, names: Sequence[str], rng: np.random.Generator) -> HistoryBatch:
    """Disturb each history in one way drawn from ``names``. None is emptied; without names nothing is drawn."""
    if not names:
        return history
    found = HistoryBatch._make([part.copy() for part in history])
    way = rng.integers(len(names), size=len(history.present))
    for number, name in enumerate(names):
        rows = np.flatnonzero(way == number)
        changed = AUGMENTATIONS[name](HistoryBatch._make([part[rows] for part in history]), rng)
        for part, new in zip(found, changed, strict=True):
            part[rows] = new
    return found


def crop(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Keep one run of CROP of the items, moved to the end as a shorter history would stand."""
    kept = history._replace(present=_run(history.present, CROP, rng))
    return kept.gather(np.argsort(kept.present, axis=1, kind="stable"))


def mask(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Leave out MASK of the items, wherever they stand."""
    chance = np.where(history.present, rng.random(history.present.shape), 2.0)
    rank = np.argsort(np.argsort(chance, axis=1), axis=1)
    count = np.floor(MASK * history.present.sum(1, keepdims=True))
    return history._replace(present=history.present & (rank >= count))


def reorder(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Shuffle one run of REORDER of the items among their places."""
    run = _run(history.present, REORDER, rng)
    column = np.broadcast_to(np.arange(run.shape[1], dtype=np.float64), run.shape)
    behind = column + run.shape[1]
    to = np.argsort(
        np.where(run, column, behind), axis=1
    )  # the run's places first, then all others as they stand
    of = np.argsort(np.where(run, rng.random(run.shape), behind), axis=1)
    place = np.empty_like(to)
    np.put_along_axis(place, to, of, 1)
    return history.gather(place)


def token_dropout(history: HistoryBatch, rng: np.random.Generator) -> HistoryBatch:
    """Leave each item out with probability DROP; one stays."""
    chance = np.where(history.present, rng.random(history.present.shape), -1.0)
    return history._replace(
        present=history.present & ((chance >= DROP) | (chance == chance.max(1, keepdims=True)))
    )


def _run(present: Bools, share: float, rng: np.random.Generator) -> Bools:
    """Mark a run of ``share`` of the present items, at least one, at a random place. Shape (batch, length)."""
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
