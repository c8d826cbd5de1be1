"""Training examples: where to cut a user's past into a history and what came next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Bools, Interactions, Ints

DAY = 86_400


class HistoryBatch(NamedTuple):
    """Item rows, events, age buckets (-1 without time) and presence; all (batch, length), most recent last."""

    item: NDArray[np.int64]
    event: NDArray[np.int64]
    age: NDArray[np.int64]
    present: Bools


class Batch(NamedTuple):
    """``positive`` (batch, p) holds candidate columns, -1 = none; ``weight`` is the loss weight of each."""

    history: HistoryBatch
    positive: NDArray[np.int64]
    weight: NDArray[np.float32]


def age_bucket(age: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """Return floor(log2(1 + age in days)), at most ``buckets - 1``."""
    days = np.maximum(age, 0) / DAY
    return np.minimum(buckets - 1, np.floor(np.log2(1.0 + days))).astype(np.int64)


def take_histories(
    log: Interactions, start: NDArray[np.int64], stop: NDArray[np.int64], rows: Ints, length: int, ages: int,
    order: NDArray[np.int64] | None = None, keep: Bools | None = None,
) -> HistoryBatch:  # fmt: skip
    """Gather the last ``length`` interactions of each range [start, stop) of the log.

    ``rows`` maps the dataset's item rows to the model's (-1 = unknown there). ``keep`` (n,) leaves interactions out.
    """
    place = stop[:, None] - length + np.arange(length)  # (batch, length)
    present = place >= start[:, None]
    place = np.maximum(place, 0)
    if order is not None:
        place = order[place]
    item = rows[log.item[place]].astype(np.int64)
    present &= item >= 0
    if keep is not None:
        present &= keep[place]
    time = np.where(present, log.time[place], 0)
    now = time.max(1, keepdims=True)
    age = np.where(now > 0, age_bucket(now - time, ages), -1)
    item = np.where(present, item, 0)
    return HistoryBatch(item, np.where(present, log.event[place], 0).astype(np.int64), age, present)


@dataclass(frozen=True)
class Examples:
    """Cuts of a log into histories and what came next.

    ``rows`` (items of the dataset) -> item rows of the model; ``column`` -> candidate columns, -1 = no candidate.
    ``cut``: ``basket`` cuts before every basket (rows of one time) that holds a positive and asks for that basket;
    ``item`` shuffles rows of equal time and cuts anywhere, asking for all that follows: for data without time or with
    one basket a user. ``forget`` is the share of examples whose history loses the target's own rows where others
    remain, so that users new to the target are met in training. ``first_only`` asks only for first purchases.
    ``whole`` asks for all that a user did, the history included (as Mult-DAE, arXiv 1802.05814): without time, what
    one likes is what one should be shown.
    """

    log: Interactions
    rows: Ints
    column: Ints
    inside: Bools
    length: int
    ages: int
    cut: str
    forget: float = 0.0
    first_only: bool = False
    whole: bool = False
    positives: int = 32

    def size(self) -> int:
        """Return how many examples an epoch has."""
        return len((self._baskets if self.cut == "basket" else self._anywhere)(np.random.default_rng(0))[1])

    def epoch(self, rng: np.random.Generator, batch: int, most: int) -> Iterator[Batch]:
        """Yield the examples of one epoch in random order, at most ``most`` of them."""
        start, cut, stop, order = (self._baskets if self.cut == "basket" else self._anywhere)(rng)
        shuffled = rng.permutation(len(cut))[:most]
        for first in range(0, len(shuffled), batch):
            pick = shuffled[first : first + batch]
            yield self._batch(start[pick], cut[pick], stop[pick], order, rng)

    @cached_property
    def column_of_row(self) -> Ints:
        """Map the model's item rows to candidate columns, -1 = no candidate."""
        known = self.rows >= 0
        column = np.full(int(self.rows.max()) + 1, -1, np.int32)
        column[self.rows[known]] = self.column[known]
        return column

    @cached_property
    def wanted(self) -> Bools:
        """Mark the interactions that may be asked for."""
        wanted = self.inside & (self.column[self.log.item] >= 0)
        if self.first_only:
            pair = self.log.user.astype(np.int64) * len(self.column) + self.log.item
            first = np.zeros(len(pair), bool)
            first[np.unique(pair, return_index=True)[1]] = True
            wanted &= first
        return wanted

    def _baskets(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        log = self.log
        new_user = np.flatnonzero(np.diff(log.user, prepend=-1))
        new_basket = np.flatnonzero(
            np.diff(log.user, prepend=-1).astype(bool) | np.diff(log.time, prepend=-1).astype(bool)
        )
        end = np.append(new_basket[1:], len(log))
        start = new_user[np.searchsorted(new_user, new_basket, side="right") - 1]
        total = np.append(0, np.cumsum(self.wanted))
        useful = (total[end] > total[new_basket]) & (new_basket > start)
        return start[useful], new_basket[useful], end[useful], _shuffle_ties(log, rng)

    def _anywhere(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        log = self.log
        begin = np.flatnonzero(np.diff(log.user, prepend=-1))
        size = np.diff(np.append(begin, len(log)))
        begin, size = begin[size > 1], size[size > 1]
        times = np.clip(size // 8, 1, 8)
        start, size = np.repeat(begin, times), np.repeat(size, times)
        cut = start + 1 + np.floor(rng.random(len(start)) * (size - 1)).astype(np.int64)
        return start, cut, start + size, _shuffle_ties(log, rng)

    def _batch(
        self, start: NDArray[np.int64], cut: NDArray[np.int64], stop: NDArray[np.int64], order: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Batch:  # fmt: skip
        history = take_histories(self.log, start, cut, self.rows, self.length, self.ages, order)
        if self.forget:
            drop = rng.random(len(cut)) < self.forget
            place = order[np.maximum(cut[:, None] - self.length + np.arange(self.length), 0)]
            outside = history.present & ~self.inside[place]
            drop &= outside.any(1)
            history = history._replace(present=np.where(drop[:, None], outside, history.present))
        place = (start if self.whole else cut)[:, None] + np.arange(self.positives)
        asked = place < stop[:, None]
        place = order[np.minimum(place, len(order) - 1)]
        positive = np.where(asked & self.wanted[place], self.column[self.log.item[place]], -1).astype(np.int64)
        return Batch(history, positive, self.log.weight[place])


def _shuffle_ties(log: Interactions, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.lexsort((rng.random(len(log)), log.time, log.user))
