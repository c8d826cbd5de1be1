"""Requests: generated with Zipf popularity from a catalogue's ids, or replayed from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.tables import read_text
from tlrec_edge.types import Doubles, Longs


@dataclass(frozen=True)
class ItemIds:
    """The item ids of a catalogue."""

    lookup: Callable[[list[int]], list[str]]
    """Returns the ids of rows."""
    items: int
    candidates: int
    """The first so many rows can be scored; the others occur only in histories."""
    history: int
    """Number of items that the encoder reads of a history."""

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> ItemIds:
        """Return the ids of a bundle."""
        shape = bundle.shape
        return cls(bundle.strings("item_ids").take, shape.items, shape.candidates, shape.length)

    @classmethod
    def generated(cls, items: int, history: int = 50) -> ItemIds:
        """Return the ids ``item-0``, ``item-1``, ..., for a system without a bundle."""
        return cls(lambda rows: [f"item-{row}" for row in rows], items, items, history)


class Requests:
    """Histories and candidate lists, the same for the same ids and seed.

    A history has ``length`` items; None means as many as the encoder reads. The popular items are
    drawn at random, so that they are spread over the tables as in a real catalogue.
    """

    def __init__(
        self, ids: ItemIds, count: int, zipf: float, seed: int, length: int | None = None
    ) -> None:
        self.ids, self.count, self._zipf, self._seed = ids, count, zipf, seed
        self.history_length = length or ids.history
        rng = np.random.default_rng([seed, 0])
        cumulative, rows = self._popularity(rng, ids.items)
        ranks = _draw(rng, cumulative, count * self.history_length).reshape(count, -1)  # (count, L)
        self.histories = [ids.lookup(history) for history in rows[ranks].tolist()]

    def with_history(self, length: int) -> Requests:
        """Return requests with histories of another length."""
        return Requests(self.ids, self.count, self._zipf, self._seed, length)

    def candidates(self, n: int) -> list[list[str]]:
        """Return one list of n distinct candidates per history."""
        rng = np.random.default_rng([self._seed, n])
        cumulative, rows = self._popularity(rng, self.ids.candidates)
        return [
            self.ids.lookup(rows[_draw_distinct(rng, cumulative, n)].tolist())
            for _ in range(self.count)
        ]

    def _popularity(self, rng: np.random.Generator, n: int) -> tuple[Doubles, Longs]:
        """Return the cumulative probabilities of the ranks, and the row of each rank."""
        weights = np.arange(1, n + 1, dtype=np.float64) ** -self._zipf
        return np.cumsum(weights) / weights.sum(), rng.permutation(n)


class Replay:
    """Requests of a file of JSON lines: ``{"history": [...], "candidates": [...]}``.

    Candidates are optional; without them, those of ``generated`` are used. Raises DataError, with
    file and line, if a line is not such a request.
    """

    def __init__(self, path: Path, generated: Requests) -> None:
        lines = enumerate(read_text(path).split("\n"), 1)
        found = [_read(path, at, line.strip()) for at, line in lines if line.strip()]
        if not found:
            raise DataError(f"{path} holds no request: write one JSON object per line")
        self.ids, self.count, self._generated = generated.ids, len(found), generated
        self.histories = [history for history, _ in found]
        self.history_length = round(sum(map(len, self.histories)) / len(found))
        self.own_candidates = [candidates for _, candidates in found if candidates]
        if self.own_candidates and len(self.own_candidates) < len(found):
            raise DataError(
                f"{path}: some requests have candidates and some have none; "
                "give candidates to all of them, or to none"
            )

    def with_history(self, length: int) -> Replay:
        """Return the same requests: a replay has its own lengths."""
        return self

    def candidates(self, n: int) -> list[list[str]]:
        """Return one list of n generated candidates per history."""
        lists = self._generated.candidates(n)
        return [lists[at % len(lists)] for at in range(self.count)]


AnyRequests = Requests | Replay


def _read(path: Path, at: int, line: str) -> tuple[list[str], list[str]]:
    try:
        data: Any = parse_json(line.encode())
        lists = data["history"], data.get("candidates") or []
    except (ValueError, TypeError, KeyError, AttributeError):
        lists = None, None
    if not all(_are_ids(ids) for ids in lists):
        raise DataError(
            f'{path}, line {at}: expected {{"history": [ids], "candidates": [ids]}}, '
            f"got {line[:80]!r}"
        )
    history, candidates = lists
    return [str(item) for item in history], [str(item) for item in candidates]


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str | int) for item in value)


def _draw(rng: np.random.Generator, cumulative: Doubles, n: int) -> Longs:
    """Draw n ranks with replacement."""
    ranks = np.searchsorted(cumulative, rng.random(n))
    # The last entry may be a rounding error below 1.
    return np.minimum(ranks, len(cumulative) - 1).astype(np.int64)


def _draw_distinct(rng: np.random.Generator, cumulative: Doubles, n: int) -> Longs:
    """Draw n distinct ranks; if too few come up, add others uniformly.

    Drawing on until there are n would take very long if n is close to the number of ranks.
    """
    ranks, first = np.unique(_draw(rng, cumulative, 4 * n), return_index=True)
    if len(ranks) >= n:
        return ranks[np.argsort(first)[:n]]
    others = np.setdiff1d(np.arange(len(cumulative)), ranks)
    return np.concatenate([ranks, rng.choice(others, n - len(ranks), replace=False)])
