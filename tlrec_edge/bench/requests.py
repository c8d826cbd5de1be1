"""Requests made from a bundle's own ids: Zipf-distributed, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle import Bundle

Longs = NDArray[np.int64]


class Requests:
    """Histories and candidate lists, alike for the same bundle and seed.

    A history has as many items as the encoder reads. Which items are popular is drawn by the seed, so that the popular
    ones are spread over the tables as they are in life.
    """

    def __init__(self, bundle: Bundle, count: int, zipf: float, seed: int) -> None:
        self._ids = bundle.strings("item_ids")
        self._count, self._zipf, self._seed = count, zipf, seed
        self._items, self._candidates = bundle.shape.items, bundle.shape.candidates
        self.history_length = bundle.shape.length
        rng = np.random.default_rng([seed, 0])
        cumulative, rows = self._popularity(rng, self._items)
        drawn = rows[_draw(rng, cumulative, count * self.history_length)].reshape(count, -1)  # (count, L)
        self.histories = [self._ids.take(row) for row in drawn.tolist()]

    def candidates(self, n: int) -> list[list[str]]:
        """Return one list of n different candidates for each history."""
        rng = np.random.default_rng([self._seed, n])
        cumulative, rows = self._popularity(rng, self._candidates)
        return [self._ids.take(rows[_draw_different(rng, cumulative, n)].tolist()) for _ in range(self._count)]

    def _popularity(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], Longs]:
        weights = np.arange(1, n + 1, dtype=np.float64) ** -self._zipf
        return np.cumsum(weights) / weights.sum(), rng.permutation(n)


def _draw(rng: np.random.Generator, cumulative: NDArray[np.float64], n: int) -> Longs:
    # The last entry may be a rounding error below 1.
    return np.minimum(np.searchsorted(cumulative, rng.random(n)), len(cumulative) - 1).astype(np.int64)


def _draw_different(rng: np.random.Generator, cumulative: NDArray[np.float64], n: int) -> Longs:
    """Draw n different ranks; where the tail is too long to be reached, the rest comes from it uniformly."""
    found, first = np.unique(_draw(rng, cumulative, 4 * n), return_index=True)
    if len(found) >= n:
        return found[np.argsort(first)[:n]]
    rest = np.setdiff1d(np.arange(len(cumulative)), found)
    return np.concatenate([found, rng.choice(rest, n - len(found), replace=False)])
