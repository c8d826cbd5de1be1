"""Draw validation rows that are like given test rows: in their negatives, items and histories.

Of the test rows only three distributions are used: of the negatives, of all candidates, and of the
lengths of the users' histories. Which user has which positive is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from tlrec_edge.data.dataset import EvalRows
from tlrec_edge.types import Doubles, Indices, Ints, Longs

MIN_ROWS, MAX_ROWS = 500, 10_000
"""Validation rows: at least so many, if there are, even if their histories are then less alike."""
MIN_MATCHED = 0.95
"""Share of the chosen rows that must be of the class of lengths which they stand for."""
CLASS_STEP = 1.5
"""Ratio of the lengths in neighbouring classes."""
MIN_TEST_ROWS = 50
"""Test rows that show how long their users' histories are."""
KNOWN_POOL = 0.01
"""Share of draws outside the items seen so far, up to which these count as the whole pool."""


def items_of(rows: EvalRows) -> Ints:
    """Return the distinct items of evaluation rows, positives and negatives."""
    items = np.unique(np.concatenate([rows.item, rows.negatives.ravel()]))
    return items[items >= 0]


@dataclass(frozen=True)
class NegativesPool:
    """From which items the negatives of given rows were drawn, and how many for a row.

    Attributes:
        items: (p,) the items, ascending.
        weight: (p,) how likely each is to be drawn, relative to the others.
        counts: numbers of negatives of the given rows that have any.
        is_known: whether the given rows have all items of the pool.
    """

    items: Ints
    weight: Doubles
    counts: Longs
    is_known: bool

    @classmethod
    def of(cls, rows: EvalRows, candidates: Ints, owned: Longs, n_items: int) -> Self:
        """Estimate the pool of the negatives of ``rows``, which are some of the candidates.

        An item's weight is its number of rows over the rows that could have it: a popular item
        is rarely a negative if users' own items, ``owned`` pairs ``user * n_items + item``, are
        none. The items that occur once show how likely an unseen item is (Good, 1953): that much
        is spread over all candidates.
        """
        is_negative = rows.negatives >= 0
        counts = is_negative.sum(1)
        items, count = np.unique(rows.negatives[is_negative], return_counts=True)
        unseen = float((count == 1).sum() / count.sum()) if len(count) else 1.0
        is_known = unseen <= KNOWN_POOL
        pool = items if is_known else candidates
        weight = np.zeros(n_items)
        weight[items] = count / _rows_that_could_have(items, rows, owned, n_items)
        weight /= max(weight.sum(), 1e-12)
        weight = weight[pool]
        if not is_known:
            weight = (1 - unseen) * weight + unseen / len(pool)
        return cls(pool.astype(np.int32), weight, counts[counts > 0], is_known)

    def draw(self, taken: Ints, count: int, rng: np.random.Generator) -> Ints:
        """Draw ``count`` distinct items that are not ``taken``, or all that there are."""
        draws = np.searchsorted(self._cumulative, rng.random(2 * count), side="right")
        first = np.sort(np.unique(draws, return_index=True)[1])
        drawn = self.items[draws[first]]
        drawn = drawn[~np.isin(drawn, taken)][:count]
        if len(drawn) == count:
            return drawn
        # Few items have most of the weight: draw in one step (Gumbel's maximum).
        keys = np.log(self.weight) + rng.gumbel(size=len(self.items))
        free = np.flatnonzero(~np.isin(self.items, taken))
        return self.items[free[np.argsort(-keys[free])[:count]]]

    @cached_property
    def _cumulative(self) -> Doubles:
        cumulative: Doubles = np.cumsum(self.weight)
        cumulative /= cumulative[-1]
        return cumulative


def _rows_that_could_have(items: Ints, rows: EvalRows, owned: Longs, n_items: int) -> Longs:
    """Count the rows that could have each item as a negative, at least 1. Shape of ``items``."""
    user = rows.user.astype(np.int64) * n_items
    named = user[:, None] + rows.negatives
    n_rows = np.full(n_items, len(rows))
    if not np.isin(named[rows.negatives >= 0], owned).any():
        last_user = int(owned.max(initial=0)) // n_items
        rows_of_user = np.bincount(rows.user, minlength=last_user + 1)
        owners = np.bincount(owned % n_items, rows_of_user[owned // n_items], n_items)
        n_rows -= owners.astype(int) + np.bincount(rows.item, minlength=n_items)
    at_least_one: Longs = np.maximum(n_rows[items], 1)
    return at_least_one


def sample_like(user: Longs, excluded: Longs, pool: NegativesPool, n_items: int, seed: int) -> Ints:
    """Draw negatives for each row of ``user`` (m,) from the pool, in the number of a given row.

    ``excluded`` are the pairs ``user * n_items + item`` that are not negatives. Rows are filled up
    with -1.
    """
    if not len(pool.counts):
        return np.empty((len(user), 0), np.int32)
    excluded_user, excluded_item = np.divmod(np.unique(excluded), n_items)
    start = np.searchsorted(excluded_user, user)
    stop = np.searchsorted(excluded_user, user, side="right")
    rng = np.random.default_rng(seed)
    counts = rng.choice(pool.counts, len(user))
    negatives = np.full((len(user), counts.max(initial=0)), -1, np.int32)
    for row, count in enumerate(counts.tolist()):
        drawn = pool.draw(excluded_item[start[row] : stop[row]], count, rng)
        negatives[row, : len(drawn)] = drawn
    return negatives


def match_lengths(lengths: Longs, test_lengths: Longs, seed: int) -> Indices:
    """Choose rows whose users' histories are as long as those of the test rows.

    Each class of lengths gets the share that it has in the test. As many rows are chosen as keep
    nearly all of them in their share; MIN_ROWS even if they do not.

    Args:
        lengths: (m, 2) interactions before each validation row: in the target, and elsewhere.
        test_lengths: (t, 2) the same for the test rows.
        seed: seed of the draws.

    Returns:
        The chosen rows, ascending.
    """
    m = len(lengths)
    if len(test_lengths) < MIN_TEST_ROWS or m <= MIN_ROWS:
        return np.arange(m)
    both = np.log1p(np.concatenate([lengths, test_lengths]))
    steps = np.rint(both / np.log(CLASS_STEP))
    row_class = np.unique(steps, axis=0, return_inverse=True)[1].ravel()
    n_classes = 1 + int(row_class.max())
    available = np.bincount(row_class[:m], minlength=n_classes)
    share = np.bincount(row_class[m:], minlength=n_classes) / len(test_lengths)
    total = _matched_rows(available, share)
    rng = np.random.default_rng(seed)
    by_class = np.lexsort((rng.random(m), row_class[:m]))
    serial = np.arange(m) - np.repeat(np.cumsum(available) - available, available)
    is_matched = serial < np.rint(total * share)[row_class[by_class]]
    others = by_class[~is_matched]
    distance = np.abs(both[others] - both[m:].mean(0)).sum(1)
    nearest = others[np.argsort(distance, kind="stable")]
    return np.sort(np.concatenate([by_class[is_matched], nearest])[:total])


def _matched_rows(available: Longs, share: Doubles) -> int:
    """Return how many rows to choose, given the rows and the test's share of each class."""
    sizes = np.arange(MIN_ROWS, min(int(available.sum()), MAX_ROWS) + 1)
    matched = sum(
        np.minimum(n, sizes * of_test) for n, of_test in zip(available, share, strict=True)
    )
    alike = sizes[matched >= MIN_MATCHED * sizes]
    return int(alike.max(initial=MIN_ROWS))
