"""A user's behaviour: what the caller passes to be encoded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.bundle.ids import ItemId, as_text, encode_id, is_integer, preview
from tlrec_edge.bundle.item_rows import ItemRows, as_list
from tlrec_edge.choices import EVENTS
from tlrec_edge.core.counts import counted
from tlrec_edge.errors import DataError
from tlrec_edge.types import Bools, Doubles, Indices, Ints

LATEST = 7_258_118_400.0
"""The year 2200 in seconds since 1970. Times above it, or below its negative, probably have another
unit."""
_SECONDS_PER_DAY = 86_400
_UNITS = (("milliseconds", 1000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))
_CODES = {name: code for code, name in enumerate(EVENTS)}


class HistoryColumns(NamedTuple):
    """A history's events and times as arrays (n,); None if it has none."""

    events: Ints | None
    """Event codes."""
    ages: Doubles | None
    """Days before ``now``."""
    order: Indices | None
    """Indices that put the items in order of time, if they are not."""


@dataclass(frozen=True)
class History:
    """What a user did, oldest first.

    Items are put in order of their timestamps if there are any. A timestamp that is not finite
    counts as the oldest.

    Args:
        items: Item ids, or their rows from ``Recommender.rows``. Unknown ones are ignored.
        events: One of "view", "click", "cart", "purchase" and "other" for each item, or its index
            in that list.
        timestamps: A time for each item, in seconds since 1970.
        now: Time of the request, in seconds since 1970. None: the time of the last known item, so
            that the same history always gives the same scores.

    Raises:
        DataError: The columns differ in length, an event is not known, or a time is not a number
            of seconds (after the year 2200 it must be in another unit).

    Example:
        >>> history = History(["item-1", "item-2"], events=["view", "purchase"])
        >>> Recommender.open("bundle").recommend(history, k=2).items
        ('42', 'item-15')
    """

    items: Sequence[ItemId] | ItemRows
    events: Sequence[str | int] | None = None
    timestamps: Sequence[float] | None = None
    now: float | None = None

    def __post_init__(self) -> None:
        items = self.items
        if type(items) is not ItemRows:
            items = as_list(items, "history")
            has_only_strings = not set(map(type, items)) - {str}
            object.__setattr__(
                self, "items", tuple(items if has_only_strings else map(as_text, items))
            )
        if self.events is not None:
            self._convert("events", event_code)
        if self.timestamps is not None:
            self._convert("timestamps", _seconds)
        if self.now is not None:
            object.__setattr__(self, "now", _seconds(self.now))

    def _convert(self, name: str, convert: Callable[[Any], Any]) -> None:
        values = as_list(getattr(self, name), name, f"{name}, one for each item")
        converted = tuple(convert(value) for value in values)
        if len(converted) != len(self.items):
            raise DataError(
                f"a history of {counted(len(self.items), 'item')} has {len(converted)} {name}; "
                "give one for each item"
            )
        object.__setattr__(self, name, converted)

    def digest(self) -> bytes:
        """Return a hash that other histories do not have: a key that takes 64 bytes."""
        key = _items_key(self.items)
        if self.events is not None or self.timestamps is not None or self.now is not None:
            events = None if self.events is None else bytes(self.events)  # type: ignore[arg-type]  # codes by now
            times = None if self.timestamps is None else np.array(self.timestamps).tobytes()
            # Lengths first, so that no two histories give the same bytes.
            head = repr((len(self.items), events is None, times is None, self.now)).encode()
            key = b"".join((head, events or b"", times or b"", key))
        return hashlib.blake2b(key).digest()

    def columns(self, known: Bools) -> HistoryColumns:
        """Return events and times; ``known`` (n,) marks the items in the bundle, at least one."""
        events = None if self.events is None else np.array(self.events, np.int32)
        if self.timestamps is None or not len(self.items):
            return HistoryColumns(events, None, None)
        times = np.array(self.timestamps, np.float64)
        finite = np.isfinite(times)
        if not finite.any():
            return HistoryColumns(events, None, None)
        times = np.where(finite, times, times[finite].min())
        now = self.now if self.now is not None and math.isfinite(self.now) else times[known].max()
        order = None
        if not (times[1:] >= times[:-1]).all():
            order = np.argsort(np.where(finite, times, -np.inf), kind="stable")
        return HistoryColumns(events, np.maximum(0.0, now - times) / _SECONDS_PER_DAY, order)


def _items_key(items: Sequence[ItemId] | ItemRows) -> bytes:
    """Return bytes that equal items have, and no others."""
    if isinstance(items, ItemRows):
        return f"rows {items.bundle_id} ".encode() + items.values.tobytes()
    joined = "\0".join(items)  # type: ignore[arg-type]  # a history converts its ids
    if joined.count("\0") == len(items) - 1:
        return b"ids " + encode_id(joined)
    return b"repr " + repr(items).encode()  # an id contains the separator, or there are none


def event_code(value: Any) -> int:
    """Return an event's index in ``EVENTS``. Raises DataError, which lists the known names."""
    code = None
    if isinstance(value, str):
        code = _CODES.get(value.strip().lower())
    elif is_integer(value) and 0 <= value < len(EVENTS):
        code = int(value)
    if code is None:
        raise DataError(
            f"unknown event {value!r:.60}; known: {', '.join(EVENTS)}, or 0..{len(EVENTS) - 1}"
        )
    return code


def as_history(value: History | Sequence[ItemId] | ItemRows) -> History:
    """Return a History of a list of item ids or their rows; a History stays as it is."""
    if type(value) is ItemRows:
        return History(value)
    if isinstance(value, History):
        return value
    return History(as_list(value, "user"))


def _seconds(value: Any) -> float:
    try:
        if isinstance(value, (bool, np.bool_, bytes, bytearray)):
            raise TypeError  # `float` reads them as numbers
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"a timestamp is a number of seconds since 1970, got {preview(value)}"
        ) from None
    if -LATEST <= seconds <= LATEST or not math.isfinite(seconds):
        return seconds
    hint = ""
    for unit, per_second in _UNITS:
        if abs(seconds) <= LATEST * per_second:
            hint = f"; looks like {unit}: divide by {per_second}"
            break
    raise DataError(
        "a timestamp is a number of seconds since 1970, "
        f"{seconds:.15g} is beyond the year 2200{hint}"
    )
