"""Training examples: where to cut a user's past into a history and what came next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.train.augment import HistoryBatch, augment
from tlrec_edge.types import Bools, Ints

DAY = 86_400
ROWS_PER_BLOCK = 1 << 20
"""Interactions that are looked at together where all of them would take much memory."""


class Batch(NamedTuple):
    """``positive`` (batch, p) holds candidate columns, -1 = none; ``weight`` is the loss weight of each."""

    history: HistoryBatch
    positive: NDArray[np.int64]
    weight: NDArray[np.float32]


def age_bucket(age: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """Return floor(log2(1 + age in days)), at most ``buckets - 1``."""
    days = np.maximum(age, 0) / DAY
    return np.minimum(buckets - 1, np.floor(np.log2(1.0 + days))).astype(np.int64)


def gather_histories(
    log: Interactions,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    rows: Ints,
    length: int,
    age_buckets: int,
    order: Ints | None = None,
    keep: Bools | None = None,
) -> HistoryBatch:
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
    age = np.where(now > 0, age_bucket(now - time, age_buckets), -1)
    item = np.where(present, item, 0)
    return HistoryBatch(item, np.where(present, log.event[place], 0).astype(np.int64), age, present)


@dataclass(frozen=True)
class Examples:
    """Cuts of a log into histories and what came next.

    ``rows`` (items of the dataset) -> item rows of the model; ``column`` -> candidate columns, -1 = no candidate.
    ``unit``: ``basket`` cuts before every basket (rows of one time) that holds a positive and asks for that basket;
    ``item`` shuffles rows of equal time and cuts anywhere, asking for all that follows: for data without time or with
    one basket a user. ``target_dropout`` is the share of examples whose history loses the target's own rows where others
    remain, so that users new to the target are met in training. ``first_only`` asks only for first purchases.
    ``reconstruct`` asks for all that a user did, the history included (as Mult-DAE, arXiv 1802.05814): without time, what
    one likes is what one should be shown. ``augment`` names the ways to disturb a history, ``by_weight`` lets an
    example weigh as much as its heaviest positive. An epoch holds a few int32 an interaction, whatever its batches.
    """

    log: Interactions
    rows: Ints
    column: Ints
    in_target: Bools
    length: int
    age_buckets: int
    unit: str
    target_dropout: float = 0.0
    first_only: bool = False
    reconstruct: bool = False
    positives: int = 32
    augment: tuple[str, ...] = ()
    by_weight: bool = False

    def size(self) -> int:
        """Return how many examples an epoch has."""
        return len(self._baskets[0]) if self.unit == "basket" else int(self._ranges[2].sum())

    def epoch(self, rng: np.random.Generator, batch: int, most: int) -> Iterator[Batch]:
        """Yield the examples of one epoch in random order, at most ``most`` of them."""
        cuts = self._baskets if self.unit == "basket" else self._anywhere(rng)
        chance = rng.random(len(self.log))
        picked = rng.permutation(len(cuts[0]))[:most]
        start, cut, stop = (column[picked].astype(np.int64) for column in cuts)
        order = self._shuffle_ties(start, stop, chance)
        del cuts, chance, picked
        for first in range(0, len(cut), batch):
            part = slice(first, first + batch)
            yield self._batch(start[part], cut[part], stop[part], order, rng)

    @cached_property
    def column_of_row(self) -> Ints:
        """Map the model's item rows to candidate columns, -1 = no candidate."""
        known = self.rows >= 0
        column = np.full(int(self.rows.max()) + 1, -1, np.int32)
        column[self.rows[known]] = self.column[known]
        return column

    @cached_property
    def is_target(self) -> Bools:
        """Mark the interactions that may be asked for."""
        is_target = self.in_target & (self.column[self.log.item] >= 0) & (self.log.weight > 0)
        if self.first_only:
            is_target &= self._first()
        return is_target

    def _first(self) -> Bools:
        """Mark the first interaction of each user and item that weighs anything, some users at a time."""
        log, begins = self.log, np.flatnonzero(self._begins[0])
        first = np.zeros(len(log), bool)
        edges = begins[
            np.searchsorted(begins, np.arange(0, begins.max(initial=-1) + 1, ROWS_PER_BLOCK))
        ]
        for low, high in pairwise([*edges.tolist(), len(log)]):
            weighted = low + np.flatnonzero(log.weight[low:high] > 0)
            pair = log.user[weighted].astype(np.int64) * len(self.column) + log.item[weighted]
            first[weighted[np.unique(pair, return_index=True)[1]]] = True
        return first

    @cached_property
    def _begins(self) -> tuple[Bools, Bools]:
        """Mark the rows that begin a user, and those that begin a basket."""
        log = self.log
        user, basket = np.ones(len(log), bool), np.ones(len(log), bool)
        user[1:] = log.user[1:] != log.user[:-1]
        basket[1:] = user[1:] | (log.time[1:] != log.time[:-1])
        return user, basket

    @cached_property
    def _baskets(self) -> tuple[Ints, Ints, Ints]:
        """Return start, cut and stop of every basket to be asked for."""
        new_user, new_basket = (np.flatnonzero(mark).astype(np.int32) for mark in self._begins)
        end = np.append(new_basket, np.int32(len(self.log)))[1:]
        start = new_user[np.searchsorted(new_user, new_basket, side="right") - 1]
        useful = np.logical_or.reduceat(self.is_target, new_basket) & (new_basket > start)
        return start[useful], new_basket[useful], end[useful]

    @cached_property
    def _ranges(self) -> tuple[Ints, Ints, Ints]:
        """Return begin, size and number of cuts of every user with at least two interactions."""
        begin = np.flatnonzero(self._begins[0]).astype(np.int32)
        size = np.append(begin, np.int32(len(self.log)))[1:] - begin
        begin, size = begin[size > 1], size[size > 1]
        return begin, size, np.clip(size // 8, 1, 8)

    def _anywhere(self, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        begin, size, times = self._ranges
        start, size = np.repeat(begin, times), np.repeat(size, times)
        cut = start + 1 + np.floor(rng.random(len(start)) * (size - 1)).astype(np.int32)
        return start, cut, start + size

    def _shuffle_ties(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chance: NDArray[np.float64]
    ) -> Ints:
        """Return an order of the log that shuffles rows of one user and time; only inside the ranges [start, stop)."""
        edge = np.zeros(len(self.log) + 1, np.int32)
        np.add.at(edge, start, 1)
        np.subtract.at(edge, stop, 1)
        begins = self._begins[1]
        tied = np.flatnonzero(
            (np.cumsum(edge[:-1], dtype=np.int32) > 0) & ~(begins & np.append(begins, True)[1:])
        )
        order = np.arange(len(self.log), dtype=np.int32)
        order[tied] = tied[np.lexsort((chance[tied], np.cumsum(begins, dtype=np.int32)[tied]))]
        return order

    def _batch(
        self,
        start: NDArray[np.int64],
        cut: NDArray[np.int64],
        stop: NDArray[np.int64],
        order: Ints,
        rng: np.random.Generator,
    ) -> Batch:
        history = gather_histories(
            self.log, start, cut, self.rows, self.length, self.age_buckets, order
        )
        if self.target_dropout:
            drop = rng.random(len(cut)) < self.target_dropout
            place = order[np.maximum(cut[:, None] - self.length + np.arange(self.length), 0)]
            in_source = history.present & ~self.in_target[place]
            drop &= in_source.any(1)
            history = history._replace(present=np.where(drop[:, None], in_source, history.present))
        history = augment(history, self.augment, rng)
        place = (start if self.reconstruct else cut)[:, None] + np.arange(self.positives)
        in_range = place < stop[:, None]
        place = order[np.minimum(place, len(order) - 1)]
        positive = np.where(
            in_range & self.is_target[place], self.column[self.log.item[place]], -1
        ).astype(np.int64)
        return Batch(history, positive, self.log.weight[place])
