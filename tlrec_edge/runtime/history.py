"""A user's behaviour as the caller gives it, and the state it is turned into."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.ids import ItemId, as_text, preview
from tlrec_edge.bundle.item_rows import ItemRows, as_list
from tlrec_edge.choices import EVENTS
from tlrec_edge.errors import DataError
from tlrec_edge.types import Ints

LATEST = 7_258_118_400.0
"""The year 2200 in seconds since 1970; as far back is the earliest. A time beyond is taken for one in another unit."""
_UNITS = (("milliseconds", 1000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))
_CODES = {name: code for code, name in enumerate(EVENTS)}


@dataclass(frozen=True)
class History:
    """What a user did, oldest first. ``events`` are names or codes of ``EVENTS``; times are in seconds since 1970.

    ``now=None`` is the time of the last item that the bundle knows. Events are put in order of their timestamps, where
    there are any; one that is not finite counts as the oldest. Raises DataError, also for a time beyond the year 2200:
    it is in another unit.
    """

    items: Sequence[ItemId] | ItemRows
    events: Sequence[str | int] | None = None
    timestamps: Sequence[float] | None = None
    now: float | None = None

    def __post_init__(self) -> None:
        items = self.items
        if type(items) is not ItemRows:
            if isinstance(items, Set):
                raise DataError(
                    f"history: expected a list of item ids, oldest first; got the set {preview(items)}"
                )
            items = as_list(items, "history")
            object.__setattr__(
                self,
                "items",
                tuple(map(as_text, items) if set(map(type, items)) - {str} else items),
            )
        for name, convert in (("events", event_code), ("timestamps", _seconds)):
            values = getattr(self, name)
            if values is None:
                continue
            converted = tuple(
                convert(value) for value in as_list(values, name, "one for each item")
            )
            if len(converted) != len(items):
                raise DataError(
                    f"a history of {len(items)} items has {len(converted)} {name}; give one for each item"
                )
            object.__setattr__(self, name, converted)
        if self.now is not None:
            object.__setattr__(self, "now", _seconds(self.now))

    def columns(
        self, known: NDArray[np.bool_]
    ) -> tuple[Ints | None, NDArray[np.float64] | None, NDArray[np.intp] | None]:
        """Return event codes, ages in days, and the order by time; None where the history has none.

        ``known`` (n,) marks the items that the bundle knows, of which there is one at least.
        """
        events = None if self.events is None else np.array(self.events, np.int32)
        if self.timestamps is None or not len(self.items):
            return events, None, None
        times = np.array(self.timestamps, np.float64)
        finite = np.isfinite(times)
        if not finite.any():
            return events, None, None
        times = np.where(finite, times, times[finite].min())
        now = self.now if self.now is not None and math.isfinite(self.now) else times[known].max()
        order = (
            None
            if (times[1:] >= times[:-1]).all()
            else np.argsort(np.where(finite, times, -np.inf), kind="stable")
        )
        return events, np.maximum(0.0, now - times) / 86_400, order


def event_code(value: Any) -> int:
    """Return an event's position in ``EVENTS``. Raises DataError that lists the known names."""
    if isinstance(value, str):
        code = _CODES.get(value.strip().lower())
    else:
        code = (
            int(value)
            if isinstance(value, (int, np.integer)) and 0 <= value < len(EVENTS)
            else None
        )
    if code is None:
        raise DataError(
            f"unknown event {value!r:.60}; known: {', '.join(EVENTS)}, or 0..{len(EVENTS) - 1}"
        )
    return code


def as_history(value: History | Sequence[ItemId] | ItemRows) -> History:
    """Take a History as it is and wrap a plain list of item ids or their rows."""
    if type(value) is ItemRows:
        return History(value)
    if isinstance(value, History):
        return value
    return History(value if isinstance(value, Set) else as_list(value, "user"))


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"a timestamp is a number of seconds since 1970, got {preview(value)}"
        ) from None
    if -LATEST <= seconds <= LATEST or not math.isfinite(seconds):
        return seconds
    likely = (
        f"; looks like {unit}: divide by {n}" for unit, n in _UNITS if abs(seconds) <= LATEST * n
    )
    raise DataError(
        f"a timestamp is a number of seconds since 1970, {seconds:.15g} is beyond the year 2200{next(likely, '')}"
    )
