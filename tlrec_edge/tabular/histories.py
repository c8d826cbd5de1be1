"""Read the histories of users from an interaction table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tlrec_edge.errors import DataError
from tlrec_edge.runtime.history import History
from tlrec_edge.tabular.column_names import COUNT_EVENTS, EVENT_SYNONYMS, normalize_key
from tlrec_edge.tabular.tables import Columns, read_columns
from tlrec_edge.tabular.times import EARLIEST, LATEST, read_times

_OPTIONAL = ("item", "category", "event", "timestamp", *COUNT_EVENTS)
_REASONS = ("no user id", "no item id", "unparsable time", "time out of range")
"""The reasons for which a row is left out."""


class _Row(NamedTuple):
    user: str
    item: str
    time: str
    """The time as text, empty if the table has no times."""
    events: list[str]
    """One event, or several if the table has a column of counts for each event."""


class _Event(NamedTuple):
    item: str
    event: str
    seconds: float


def read_histories(
    path: Path, progress: Callable[[str], None] = lambda line: None
) -> dict[str, History]:
    """Return the history of every user in an interaction table, by user id.

    The table has a user and an item column, and may have events and times. It is read by the rules
    of `prepare`:

    - A row of counts becomes one event of each kind with a positive count.
    - A row without an item but with a category gets the item ``category:NAME``.
    - An event with an unknown name counts as "other".
    - A row without an id, or whose time cannot be read or is out of range, is left out.

    ``progress`` is called with the number of rows left out, by reason, and of unknown events.

    Raises DataError if the file cannot be read, a column is missing or no row is usable.
    """
    rows: list[_Row] = []
    left_out = dict.fromkeys(_REASONS, 0)
    roles: set[str] = set()
    unknown_events: Counter[str] = Counter()
    for chunk in read_columns(path, ["user"], _OPTIONAL):
        if "item" not in chunk and "category" not in chunk:
            raise DataError(f"{path} has no item column; rename the column to 'item'")
        roles = set(chunk)
        if roles.isdisjoint(COUNT_EVENTS):
            unknown_events.update(filter(_is_unknown_event, chunk.get("event", ())))
        rows += _parse_rows(chunk, left_out)
    has_times = "timestamp" in roles
    has_events = not roles.isdisjoint({"event", *COUNT_EVENTS})
    seconds = _read_times(path, rows) if has_times else {"": 0.0}
    by_user = _group_by_user(rows, seconds, left_out)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items() if count)
    if reasons and not by_user:
        raise DataError(f"{path}: none of {sum(left_out.values()):,} rows is usable ({reasons})")
    if reasons:
        progress(f"{path}: rows left out: {reasons}")
    if unknown_events:
        progress(
            f"{path}: events not recognised (read as other): {unknown_events.total():,}, "
            f"first {next(iter(unknown_events))!r:.60}"
        )
    return {user: _history(events, has_events, has_times) for user, events in by_user.items()}


def _parse_rows(chunk: Columns, left_out: dict[str, int]) -> Iterator[_Row]:
    """Yield the rows with a user and an item, and count the others."""
    roles = tuple(chunk)
    for cells in zip(*chunk.values(), strict=True):
        row = dict(zip(roles, cells, strict=True))
        item = _item(row)
        if not row["user"].strip():
            left_out["no user id"] += 1
        elif not item.strip():
            left_out["no item id"] += 1
        else:
            yield _Row(row["user"], item, row.get("timestamp", ""), _events(row))


def _item(row: Mapping[str, str]) -> str:
    item, category = row.get("item", ""), row.get("category", "").strip()
    return f"category:{category}" if category and not item.strip() else item


def _events(row: Mapping[str, str]) -> list[str]:
    counts = [(event, row[role]) for role, event in COUNT_EVENTS.items() if role in row]
    if counts:
        return [event for event, count in counts if _is_positive(count)]
    event = row.get("event", "")
    return [EVENT_SYNONYMS.get(normalize_key(event), "other") if event else "purchase"]


def _is_unknown_event(event: str) -> bool:
    return event != "" and normalize_key(event) not in EVENT_SYNONYMS


def _is_positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _read_times(path: Path, rows: Sequence[_Row]) -> Mapping[str, float]:
    try:
        return read_times(row.time for row in rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _group_by_user(
    rows: Sequence[_Row], seconds: Mapping[str, float], left_out: dict[str, int]
) -> dict[str, list[_Event]]:
    """Return the events of each user, and count the rows without a usable time."""
    by_user: dict[str, list[_Event]] = {}
    for row in rows:
        time = seconds[row.time]
        if not EARLIEST <= time < LATEST:
            # NaN, which differs from itself, is a text that is not a time.
            left_out["time out of range" if time == time else "unparsable time"] += 1
        elif row.events:
            events = (_Event(row.item, event, time) for event in row.events)
            by_user.setdefault(row.user, []).extend(events)
    return by_user


def _history(events: list[_Event], has_events: bool, has_times: bool) -> History:
    items, kinds, times = zip(*events, strict=True)
    return History(items, kinds if has_events else None, times if has_times else None)
