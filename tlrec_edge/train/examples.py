"""Training examples: a user's log is cut into a history and the interactions that follow it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tlrec_edge.data.dataset import Interactions
from tlrec_edge.train.augment import HistoryBatch, augment
from tlrec_edge.types import Bools, Doubles, Floats, Ints, Longs

DAY = 86_400
ROWS_PER_BLOCK = 1 << 20
"""Interactions that are handled at once if all of them would take much memory."""
MAX_POSITIVES = 32
"""Positives of one example: the first ones after the cut."""
ITEMS_PER_CUT, MAX_CUTS = 8, 8
"""In an epoch of unit "item", a user's history is cut once per eight interactions, 1 to 8 times."""


class Batch(NamedTuple):
    """Examples of one training step."""

    history: HistoryBatch
    positive: Longs
    """Candidate columns, (batch, p), -1 for none."""
    weight: Floats
    """Weight of each positive in the loss, (batch, p)."""


def age_bucket(age: Longs, buckets: int) -> Longs:
    """Return floor(log2(1 + days)) of ages in seconds, at most ``buckets - 1``."""
    days = np.maximum(age, 0) / DAY
    return np.minimum(buckets - 1, np.floor(np.log2(1.0 + days))).astype(np.int64)


def gather_histories(
    log: Interactions,
    start: Longs,
    stop: Longs,
    rows: Ints,
    length: int,
    age_buckets: int,
    order: Ints | None = None,
    keep: Bools | None = None,
) -> HistoryBatch:
    """Return the last ``length`` interactions of each range [start, stop) of the log.

    ``rows`` maps item rows of the dataset to those of the model, -1 if it lacks them. ``order`` is
    an order of the log to use instead of its own. ``keep`` (n,) marks the interactions to use.
    """
    position = stop[:, None] - length + np.arange(length)  # (batch, length)
    present = position >= start[:, None]
    position = np.maximum(position, 0)
    if order is not None:
        position = order[position]
    item = rows[log.item[position]].astype(np.int64)
    present &= item >= 0
    if keep is not None:
        present &= keep[position]
    time = np.where(present, log.time[position], 0)
    now = time.max(1, keepdims=True)
    event = np.where(present, log.event[position], 0).astype(np.int64)
    age = np.where(now > 0, age_bucket(now - time, age_buckets), -1)
    return HistoryBatch(np.where(present, item, 0), event, age, present)


@dataclass(frozen=True)
class Examples:
    """Cuts of a log into histories and the positives that follow.

    With unit "basket" a cut is before a basket (the interactions of one user and time), and the
    positives are that basket. With unit "item", for data without times or with one basket per user,
    interactions of equal time are shuffled, a cut is anywhere, and all that follows is positive.

    Attributes:
        log: The interactions, sorted by user and time.
        rows: The model's row of each item of the dataset, -1 if the model lacks it.
        column: The candidate column of each item of the dataset, -1 if it is not a candidate.
        in_target: Marks the interactions in the target, (n,). Only these are positives.
        length: Interactions in a history.
        age_buckets: Buckets of the age of an interaction.
        unit: "basket" or "item".
        target_dropout: Share of the histories that lose their target interactions if others
            remain, so that training meets users who are new to the target.
        first_only: Whether only the first interaction of a user with an item is a positive.
        reconstruct: Whether the history itself is positive too, as in Mult-DAE
            (arXiv 1802.05814): without times, what a user has is what should be recommended.
        positives: Most positives of an example.
        augment: Random changes to histories (see ``augment``).
        by_weight: Whether an example weighs as much as its heaviest positive; else all weigh the
            same.
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
    positives: int = MAX_POSITIVES
    augment: tuple[str, ...] = ()
    by_weight: bool = False

    def size(self) -> int:
        """Return the number of examples in an epoch."""
        return len(self._baskets[0]) if self.unit == "basket" else int(self._ranges[2].sum())

    def epoch(self, rng: np.random.Generator, batch: int, limit: int) -> Iterator[Batch]:
        """Yield batches of the examples of one epoch in random order, at most ``limit`` examples.

        An epoch takes a few int32 per interaction, whatever the size of its batches.
        """
        cuts = self._baskets if self.unit == "basket" else self._random_cuts(rng)
        chance = rng.random(len(self.log))
        picked = rng.permutation(len(cuts[0]))[:limit]
        start, cut, stop = (column[picked].astype(np.int64) for column in cuts)
        order = self._shuffle_ties(start, stop, chance)
        del cuts, chance, picked  # a generator would keep them until the end of the epoch
        for first in range(0, len(cut), batch):
            part = slice(first, first + batch)
            yield self._batch(start[part], cut[part], stop[part], order, rng)

    @cached_property
    def column_of_row(self) -> Ints:
        """The candidate column of each of the model's rows, -1 if it is not a candidate."""
        known = self.rows >= 0
        column = np.full(int(self.rows.max()) + 1, -1, np.int32)
        column[self.rows[known]] = self.column[known]
        return column

    @cached_property
    def is_target(self) -> Bools:
        """Marks the interactions that may be positives."""
        is_target = self.in_target & (self.column[self.log.item] >= 0) & (self.log.weight > 0)
        if self.first_only:
            is_target &= self._first()
        return is_target

    def _first(self) -> Bools:
        """Mark the first interaction of each user and item that has a weight."""
        log, begins = self.log, np.flatnonzero(self._begins[0])
        first = np.zeros(len(log), bool)
        # Blocks of whole users, because sorting the pairs of all users would take much memory.
        block_starts = np.arange(0, begins.max(initial=-1) + 1, ROWS_PER_BLOCK)
        edges = begins[np.searchsorted(begins, block_starts)]
        for low, high in pairwise([*edges.tolist(), len(log)]):
            weighted = low + np.flatnonzero(log.weight[low:high] > 0)
            pair = log.user[weighted].astype(np.int64) * len(self.column) + log.item[weighted]
            _, index = np.unique(pair, return_index=True)
            first[weighted[index]] = True
        return first

    @cached_property
    def _begins(self) -> tuple[Bools, Bools]:
        """Marks of the interactions that begin a user, and of those that begin a basket."""
        log = self.log
        user, basket = np.ones(len(log), bool), np.ones(len(log), bool)
        user[1:] = log.user[1:] != log.user[:-1]
        basket[1:] = user[1:] | (log.time[1:] != log.time[:-1])
        return user, basket

    @cached_property
    def _baskets(self) -> tuple[Ints, Ints, Ints]:
        """Start, cut and stop of each basket that has a positive and a history before it."""
        new_user, new_basket = (np.flatnonzero(mark).astype(np.int32) for mark in self._begins)
        end = np.append(new_basket, np.int32(len(self.log)))[1:]
        start = new_user[np.searchsorted(new_user, new_basket, side="right") - 1]
        useful = np.logical_or.reduceat(self.is_target, new_basket) & (new_basket > start)
        return start[useful], new_basket[useful], end[useful]

    @cached_property
    def _ranges(self) -> tuple[Ints, Ints, Ints]:
        """Start, size and number of cuts of each user with at least two interactions."""
        start = np.flatnonzero(self._begins[0]).astype(np.int32)
        size = np.append(start, np.int32(len(self.log)))[1:] - start
        start, size = start[size > 1], size[size > 1]
        return start, size, np.clip(size // ITEMS_PER_CUT, 1, MAX_CUTS)

    def _random_cuts(self, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Return start, cut and stop of random cuts; at least one item is on either side."""
        start, size, times = self._ranges
        start, size = np.repeat(start, times), np.repeat(size, times)
        cut = start + 1 + np.floor(rng.random(len(start)) * (size - 1)).astype(np.int32)
        return start, cut, start + size

    def _shuffle_ties(self, start: Longs, stop: Longs, chance: Doubles) -> Ints:
        """Return an order of the log that shuffles each basket, within the ranges [start, stop)."""
        # +1 at each start and -1 at each stop: the running sum is above 0 inside a range.
        edge = np.zeros(len(self.log) + 1, np.int32)
        np.add.at(edge, start, 1)
        np.subtract.at(edge, stop, 1)
        in_range = np.cumsum(edge[:-1], dtype=np.int32) > 0
        begins = self._begins[1]
        is_alone = begins & np.append(begins, True)[1:]
        tied = np.flatnonzero(in_range & ~is_alone)
        basket = np.cumsum(begins, dtype=np.int32)
        order = np.arange(len(self.log), dtype=np.int32)
        order[tied] = tied[np.lexsort((chance[tied], basket[tied]))]
        return order

    def _batch(
        self,
        start: Longs,
        cut: Longs,
        stop: Longs,
        order: Ints,
        rng: np.random.Generator,
    ) -> Batch:
        history = gather_histories(
            self.log, start, cut, self.rows, self.length, self.age_buckets, order
        )
        if self.target_dropout:
            history = self._drop_target(history, cut, order, rng)
        history = augment(history, self.augment, rng)
        first = start if self.reconstruct else cut
        position = first[:, None] + np.arange(self.positives)  # (batch, p)
        in_range = position < stop[:, None]
        position = order[np.minimum(position, len(order) - 1)]
        is_positive = in_range & self.is_target[position]
        positive = np.where(is_positive, self.column[self.log.item[position]], -1)
        return Batch(history, positive.astype(np.int64), self.log.weight[position])

    def _drop_target(
        self, history: HistoryBatch, cut: Longs, order: Ints, rng: np.random.Generator
    ) -> HistoryBatch:
        """Remove the target's interactions from some of the histories that have others."""
        drop = rng.random(len(cut)) < self.target_dropout
        position = order[np.maximum(cut[:, None] - self.length + np.arange(self.length), 0)]
        in_source = history.present & ~self.in_target[position]
        drop &= in_source.any(1)
        return history._replace(present=np.where(drop[:, None], in_source, history.present))
