"""Requests: Zipf-distributed and seeded, made from a catalogue's ids, or replayed from a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import DataError
from tlrec_edge.types import Longs


@dataclass(frozen=True)
class ItemIds:
    """The ids of a catalogue: ``lookup`` gives those of some rows, of which the first ``candidates`` may be scored."""

    lookup: Callable[[list[int]], list[str]]
    items: int
    candidates: int
    history: int
    """Items that are read of a history."""

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> ItemIds:
        shape = bundle.shape
        return cls(bundle.strings("item_ids").take, shape.items, shape.candidates, shape.length)

    @classmethod
    def generated(cls, items: int, history: int = 50) -> ItemIds:
        """Return ids ``item-0``, ``item-1``, ..."""
        return cls(lambda rows: [f"item-{row}" for row in rows], items, items, history)


class Requests:
    """Histories and candidate lists, alike for the same ids and seed.

    A history has as many items as are read of it, unless ``length`` says otherwise. Which items are popular is drawn by
    the seed, so that the popular ones are spread over the tables as they are in life.
    """

    def __init__(
        self, ids: ItemIds, count: int, zipf: float, seed: int, length: int | None = None
    ) -> None:
        self.ids, self.count, self._zipf, self._seed = ids, count, zipf, seed
        self.history_length = length or ids.history
        rng = np.random.default_rng([seed, 0])
        cumulative, rows = self._popularity(rng, ids.items)
        drawn = rows[_draw(rng, cumulative, count * self.history_length)].reshape(
            count, -1
        )  # (count, L)
        self.histories = [ids.lookup(row) for row in drawn.tolist()]

    def with_history(self, length: int) -> Requests:
        """Return requests whose histories have another length."""
        return Requests(self.ids, self.count, self._zipf, self._seed, length)

    def candidates(self, n: int) -> list[list[str]]:
        """Return one list of n different candidates for each history."""
        rng = np.random.default_rng([self._seed, n])
        cumulative, rows = self._popularity(rng, self.ids.candidates)
        return [
            self.ids.lookup(rows[_draw_distinct(rng, cumulative, n)].tolist())
            for _ in range(self.count)
        ]

    def _popularity(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], Longs]:
        weights = np.arange(1, n + 1, dtype=np.float64) ** -self._zipf
        return np.cumsum(weights) / weights.sum(), rng.permutation(n)


class Replay:
    """Requests as they are in a file of JSON lines: ``{"history": [...], "candidates": [...]}``, candidates optional.

    Raises DataError that names file and line.
    """

    def __init__(self, path: Path, drawn: Requests) -> None:
        lines = [(at, line) for at, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
        found = [_read(path, at, line) for at, line in lines]
        if not found:
            raise DataError(f"{path} holds no request; write one JSON object a line")
        self.ids, self.count, self.histories = (
            drawn.ids,
            len(found),
            [history for history, _ in found],
        )
        self.history_length = round(sum(map(len, self.histories)) / len(found))
        self.own_candidates = [candidates for _, candidates in found if candidates]
        if self.own_candidates and len(self.own_candidates) < len(found):
            raise DataError(
                f"{path}: some requests have candidates and some have none; give all of them, or none"
            )
        self._drawn = drawn

    def with_history(self, length: int) -> Replay:
        """Return itself: what is replayed has its own lengths."""
        return self

    def candidates(self, n: int) -> list[list[str]]:
        """Return one list of candidates for each history: n drawn ones."""
        drawn = self._drawn.candidates(n)
        return [drawn[at % len(drawn)] for at in range(self.count)]


AnyRequests = Requests | Replay


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def _read(path: Path, at: int, line: str) -> tuple[list[str], list[str]]:
    try:
        data: Any = json.loads(line)
        lists = data["history"], data.get("candidates") or []
    except (ValueError, TypeError, KeyError, AttributeError):
        lists = None, None
    if not all(
        isinstance(ids, list) and all(isinstance(item, str | int) for item in ids) for ids in lists
    ):
        raise DataError(
            f'{path}, line {at}: expected {{"history": [ids], "candidates": [ids]}}, got {line[:80]!r}'
        )
    history, candidates = lists
    return [str(item) for item in history], [str(item) for item in candidates]


def _draw(rng: np.random.Generator, cumulative: NDArray[np.float64], n: int) -> Longs:
    # The last entry may be a rounding error below 1.
    return np.minimum(np.searchsorted(cumulative, rng.random(n)), len(cumulative) - 1).astype(
        np.int64
    )


def _draw_distinct(rng: np.random.Generator, cumulative: NDArray[np.float64], n: int) -> Longs:
    """Draw n different ranks; where the tail is too long to be reached, the rest comes from it uniformly."""
    found, first = np.unique(_draw(rng, cumulative, 4 * n), return_index=True)
    if len(found) >= n:
        return found[np.argsort(first)[:n]]
    rest = np.setdiff1d(np.arange(len(cumulative)), found)
    return np.concatenate([found, rng.choice(rest, n - len(found), replace=False)])
