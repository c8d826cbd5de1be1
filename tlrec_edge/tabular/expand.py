"""From the usable rows of a log to interactions: counts, events, and limits for each user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.choices import EVENT_WEIGHTS, EVENTS
from tlrec_edge.tabular.column import read_categories
from tlrec_edge.tabular.column_names import COUNT_EVENTS
from tlrec_edge.tabular.join import JoinedTables
from tlrec_edge.tabular.log_columns import LogColumns
from tlrec_edge.tabular.numbers import Numbers, read_numbers
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.types import Bools, Doubles, Longs

_EVENT_WEIGHTS = np.array(EVENT_WEIGHTS)


@dataclass
class RowFilter:
    """The rows that no rule has dropped yet, and how many each rule dropped.

    A row that breaks several rules is counted under the first one.
    """

    keep: Bools
    counts: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, rows: Bools) -> None:
        """Drop ``rows``, and count those that no rule dropped before."""
        self.counts[reason] = int((self.keep & rows).sum())
        self.keep &= ~rows

    def note(self, reason: str, rows: Bools) -> None:
        """Count ``rows`` that no rule has dropped, without dropping them."""
        self.counts[f"{reason} (kept)"] = int((self.keep & rows).sum())

    @property
    def reasons(self) -> str:
        """The rules that dropped rows, and how many."""
        dropped = (pair for pair in self.counts.items() if pair[1] and "(kept" not in pair[0])
        return ", ".join(f"{reason} {count}" for reason, count in dropped)


class ExpandedRows(NamedTuple):
    """The interactions that come from the kept rows: raw row, event and weight of each."""

    row: Longs
    event: NDArray[np.int8]
    weight: Doubles

    def select(self, indices: Longs) -> ExpandedRows:
        return ExpandedRows(self.row[indices], self.event[indices], self.weight[indices])

    def covers(self, n_rows: int) -> Bools:
        """Mark the raw rows that gave at least one interaction. Shape (n_rows,)."""
        covered = np.zeros(n_rows, bool)
        covered[self.row] = True
        return covered


def expand(rows: RowFilter, raw: JoinedTables, schema: Schema) -> ExpandedRows:
    """Return the interactions of the kept rows: one per positive count, or one per row."""
    counts = {
        event: read_numbers(raw.columns[role], schema.decimal)
        for role, event in COUNT_EVENTS.items()
        if role in raw.columns
    }
    if counts:
        return _expand_counts(rows, counts)
    event = _read_events(rows, raw, schema)
    kept = np.flatnonzero(rows.keep)
    return ExpandedRows(kept, event[kept], _EVENT_WEIGHTS[event[kept]])


def _expand_counts(rows: RowFilter, counts: Mapping[str, Numbers]) -> ExpandedRows:
    invalid = np.logical_or.reduce([column.invalid for column in counts.values()])
    positive = np.logical_or.reduce([column.values > 0 for column in counts.values()])
    rows.drop("unreadable count", invalid)
    rows.drop("no positive count", ~positive)
    parts = []
    for event, column in counts.items():
        row = np.flatnonzero(rows.keep & (column.values > 0))
        code = np.full(len(row), EVENTS.index(event), np.int8)
        parts.append(ExpandedRows(row, code, _EVENT_WEIGHTS[code] * np.log1p(column.values[row])))
    joined = ExpandedRows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return joined.select(np.argsort(joined.row, kind="stable"))


def _read_events(rows: RowFilter, raw: JoinedTables, schema: Schema) -> NDArray[np.int8]:
    default = EVENTS.index(schema.default_event)
    if "event" not in raw.columns:
        return np.full(raw.rows, default, np.int8)
    labels = read_categories(raw.columns["event"])
    events = [schema.event_of(name) for name in labels.names]
    # The last entry is for code -1, the empty cells.
    codes = np.array([*(EVENTS.index(event or "other") for event in events), default], np.int8)
    unknown = np.array([*(event is None for event in events), False])
    unrecognised = int((rows.keep & unknown[labels.codes]).sum())
    rows.counts["event not recognised (kept as other)"] = unrecognised
    event: NDArray[np.int8] = codes[labels.codes]
    return event


def limit(
    rows: RowFilter, expanded: ExpandedRows, columns: LogColumns, schema: Schema
) -> ExpandedRows:
    """Apply the rules that compare interactions: first of each pair, newest of each user."""
    if schema.duplicates == "first-pair":
        expanded = expanded.select(_first_of_pairs(expanded.row, columns))
        rows.drop("repeated pair", ~expanded.covers(len(rows.keep)))
    if schema.max_per_user:
        expanded = expanded.select(_newest_of_users(expanded.row, columns, schema.max_per_user))
        reason = f"beyond the newest {schema.max_per_user} of a user"
        rows.drop(reason, ~expanded.covers(len(rows.keep)))
    return expanded


def _first_of_pairs(row: Longs, columns: LogColumns) -> Longs:
    """Return the first interaction of each (user, item) by time; at equal times, the first row."""
    order = np.lexsort((row, columns.time[row]))
    item = columns.item.codes
    pair = columns.user.codes[row] * (int(item.max()) + 1) + item[row]
    return np.sort(order[np.unique(pair[order], return_index=True)[1]])


def _newest_of_users(row: Longs, columns: LogColumns, limit: int) -> Longs:
    """Return the ``limit`` newest interactions of each user; at equal times, the last rows."""
    order = np.lexsort((row, columns.time[row], columns.user.codes[row]))
    user = columns.user.codes[row][order]
    # 1 for a user's newest interaction, 2 for the one before, ...
    from_end = np.searchsorted(user, user, side="right") - np.arange(len(order))
    return np.sort(order[from_end <= limit])
