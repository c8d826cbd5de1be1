"""Interaction tables to clean columns, with a count of every row that was dropped and why.

Training and serving read a log by these rules: ``prepare`` makes a dataset of the result, and
``histories.py`` the histories of users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.choices import EVENT_WEIGHTS, EVENTS
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import (
    Column,
    common,
    concatenate,
    merge_duplicates,
    read_categories,
    read_ids,
)
from tlrec_edge.tabular.column_names import COUNT_EVENTS, INTERACTION_NAMES, normalize_key
from tlrec_edge.tabular.numbers import Numbers, ambiguous_number, read_numbers
from tlrec_edge.tabular.roles import find_roles, require_role, suggestion
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.tables import UNNAMED, Table
from tlrec_edge.tabular.times import (
    TimeReading,
    Times,
    join_clock,
    looks_like_clock,
    looks_like_dates,
    read_times,
)
from tlrec_edge.types import Bools, Doubles, Longs

NO_DOMAIN = "unknown"
"""Domain of a row that names none: its cell is empty, or the item table does not list its item."""
MISSING_IDS = frozenset(
    [
        "null",
        "nan",
        "none",
        "n/a",
        "na",
        "\\n",
        "undefined",
        "unknown",
        "nil",
        "(null)",
        "<na>",
        "#n/a",
    ]
)
"""Words that usually mean that an id is missing."""
MAX_NAMES_SHOWN = 30
_OTHER = "raw:"
"""Prefix of columns without a role."""
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


@dataclass(frozen=True)
class CleanLog:
    """Clean interactions as columns of equal length.

    Attributes:
        user: the users' ids.
        item: the items' ids.
        domain: None if the tables have no domain column; then an item's own domain counts.
        event: index into ``EVENTS``.
        weight: the event's weight, times ``log1p`` of the count if the table has counts.
        time: seconds since 1970, 0 if the tables have no times.
        is_category: marks rows whose item is a whole category.
        users: the ids of all users.
        counts: rows read, rows kept, and rows dropped by each rule.
        roles: role to column name.
        unused: columns that no role uses.
        title: the item's title, if the log has one.
        category: the item's category, if the log has one.
        price: the price, if the log has one; NaN if unreadable.
        reading: how the times were read; None if the tables have none.
        notes: what a user should know about how the tables were read.
    """

    user: Column
    item: Column
    domain: Column | None
    event: NDArray[np.int8]
    weight: Doubles
    time: Longs
    is_category: Bools
    users: frozenset[str]
    counts: Mapping[str, int]
    roles: Mapping[str, str]
    unused: tuple[str, ...]
    title: Column | None = None
    category: Column | None = None
    price: Doubles | None = None
    reading: TimeReading | None = None
    notes: tuple[str, ...] = ()

    def merge_items(self, item_map: Mapping[str, str]) -> CleanLog:
        """Replace the item ids that the map contains; the domain of a row does not change."""
        if not item_map:
            return self
        is_mapped = np.array([name in item_map for name in self.item.names], bool)
        names = [item_map.get(name, name) for name in self.item.names]
        replaced = int(is_mapped[self.item.codes].sum())
        counts = {**self.counts, "item id replaced by item_map (rows)": replaced}
        return replace(self, item=merge_duplicates(self.item.codes, names), counts=counts)


class _JoinedTables(NamedTuple):
    """Several tables as one, with columns by role; other columns have the prefix "raw:"."""

    columns: Mapping[str, Column]
    rows: int
    roles: Mapping[str, str]
    name: str
    notes: tuple[str, ...]


class _Columns(NamedTuple):
    """Columns over all raw rows: the rules read them, and ``CleanLog`` takes its rows from them."""

    user: Column
    item: Column
    is_category: Bools
    price: Numbers | None
    times: Times | None
    time: Longs
    reading: TimeReading | None


def clean_interactions(
    tables: Sequence[Table], schema: Schema, table_name: str = "interactions", strict: bool = True
) -> CleanLog:
    """Clean interaction tables by a schema; ``table_name`` names them in error messages.

    A row of counts (views, purchases ...) becomes one interaction for each positive count, of
    weight ``event weight * log1p(count)``. Any other row has its event's weight. A row without an
    item but with a category is an interaction with the item ``category:NAME``.

    Unless ``strict``, columns and domains that the schema names need not occur: a log to be scored
    may lack what the log of the training had.

    Raises DataError if a column is missing or if no row can be used, with the number of rows that
    each rule dropped.
    """
    raw = _join_tables(tables, schema, table_name, strict)
    columns = _read_columns(raw, schema)
    rows = RowFilter(np.ones(raw.rows, bool))
    _drop_invalid(rows, raw, columns, schema, strict)
    expanded = _expand(rows, raw, schema)
    expanded = _limit(rows, expanded, columns, schema)
    if columns.is_category.any():
        rows.note("category instead of an item", columns.is_category)
    if not len(expanded.row):
        raise DataError(
            f"{table_name}: none of {raw.rows} rows is usable ({_drop_reasons(rows)}); "
            f"check: {_format_roles(raw.roles)}{_hint(raw, columns)}"
        )
    kept = expanded.row
    user, item = columns.user, columns.item
    return CleanLog(
        user=user.take(kept),
        item=item.take(kept),
        domain=rename_domains(_labels(raw, "domain", kept), schema, table_name, strict),
        event=expanded.event,
        weight=expanded.weight,
        time=columns.time[kept],
        is_category=columns.is_category[kept],
        users=frozenset(user.names[code] for code in np.unique(user.codes[kept])),
        counts={"rows read": raw.rows, "rows kept": int(rows.keep.sum()), **rows.counts},
        roles=raw.roles,
        unused=_unused_columns(raw, schema),
        title=_labels(raw, "title", kept),
        category=_labels(raw, "category", kept),
        price=None if columns.price is None else columns.price.values[kept],
        reading=columns.reading,
        notes=(*raw.notes, *_notes(raw, columns, schema)),
    )


def _join_tables(
    tables: Sequence[Table], schema: Schema, table_name: str, strict: bool
) -> _JoinedTables:
    """Concatenate tables by the roles of their columns.

    Raises DataError if a table has no column for the user, or none for the item or a category.
    """
    renamed: list[dict[str, Column]] = []
    roles: dict[str, str] = {}
    notes: dict[str, None] = {}
    for table in tables:
        names = list(table.columns)
        found = find_roles(names, schema.interactions, INTERACTION_NAMES, table_name, strict)
        for role in ("user",) if "category" in found else ("user", "item"):
            require_role(found, role, names, table_name, "interactions")
        found, columns = _with_clock(table, found, schema)
        role_of = {column: role for role, column in found.items()}
        renamed.append({role_of.get(k, f"{_OTHER}{k}"): v for k, v in columns.items()})
        roles.update(found)
        notes.update(dict.fromkeys(table.notes))
    if len(renamed) == 1:
        return _JoinedTables(renamed[0], tables[0].rows, roles, table_name, tuple(notes))
    names = list(dict.fromkeys(name for columns in renamed for name in columns))
    sizes = [table.rows for table in tables]
    joined = {
        name: concatenate(
            columns.get(name, _empty(rows)) for columns, rows in zip(renamed, sizes, strict=True)
        )
        for name in names
    }
    return _JoinedTables(joined, sum(sizes), roles, table_name, tuple(notes))


def _empty(rows: int) -> Column:
    return Column(np.full(rows, -1, np.int64), [])


def _with_clock(
    table: Table, roles: Mapping[str, str], schema: Schema
) -> tuple[dict[str, str], dict[str, Column]]:
    """Join a date and a time of day in two columns, if the values show that they are such."""
    roles, columns = dict(roles), dict(table.columns)
    clock = roles.get("clock", "")
    if not clock and "timestamp" not in schema.interactions:
        clock, date = _clock_and_date(columns, roles)
        if clock:
            roles |= {"timestamp": date, "clock": clock}
    if clock and "timestamp" in roles:
        date = roles["timestamp"]
        columns[date] = join_clock(columns[date], columns[clock])
    return roles, columns


def _clock_and_date(columns: Mapping[str, Column], roles: Mapping[str, str]) -> tuple[str, str]:
    """Return the columns of the time of day and of the date, "" if the table has no such pair."""
    known = INTERACTION_NAMES["timestamp"]
    names = [name for name in columns if normalize_key(name) in known]
    if "timestamp" not in roles or len(names) < 2:
        return "", ""
    clocks = [name for name in names if looks_like_clock(columns[name])]
    dates = [name for name in names if name not in clocks and looks_like_dates(columns[name])]
    return (clocks[0], dates[0]) if clocks and dates else ("", "")


def rename_domains(
    labels: Column | None, schema: Schema, table_name: str, check: bool = True
) -> Column | None:
    """Rename domains by the schema; an empty cell becomes the domain "unknown".

    With ``check``, raises DataError if the schema renames a domain that does not occur: nearly
    always it is misspelt.
    """
    if labels is None:
        return None
    absent = [value for value in schema.domains if value not in (*labels.names, "*")]
    if absent and check:
        known = ", ".join(sorted(labels.names)[:MAX_NAMES_SHOWN])
        raise DataError(
            f"{table_name}: no domain {absent[0]!r} to rename"
            f"{suggestion(absent[0], labels.names)}; known: {known}"
        )
    names = [schema.domain_of(name) for name in labels.names]
    in_order = sorted({*names, NO_DOMAIN} if (labels.codes < 0).any() else set(names))
    index = {name: i for i, name in enumerate(in_order)}
    # The last entry is for code -1, the empty cells.
    recode = np.array([*(index[name] for name in names), index.get(NO_DOMAIN, -1)], np.int64)
    return Column(recode[labels.codes], in_order)


def category_id(name: str) -> str:
    """Return the id of the item that represents a whole category."""
    return f"category:{name}"


def _read_columns(raw: _JoinedTables, schema: Schema) -> _Columns:
    columns = raw.columns
    item, is_category = _read_items(raw, schema)
    times, reading = None, None
    if "timestamp" in columns:
        try:
            times, reading = read_times(columns["timestamp"], schema.time_format)
        except DataError as error:
            raise DataError(f"{raw.name}: {error}") from error
    return _Columns(
        user=read_ids(columns["user"], schema.missing),
        item=item,
        is_category=is_category,
        price=read_numbers(columns["price"], schema.decimal) if "price" in columns else None,
        times=times,
        time=np.zeros(raw.rows, np.int64) if times is None else times.seconds,
        reading=reading,
    )


def _read_items(raw: _JoinedTables, schema: Schema) -> tuple[Column, Bools]:
    """Return the items, and which of them are categories that replace a missing item."""
    item = read_ids(raw.columns.get("item", _empty(raw.rows)), schema.missing)
    if "category" not in raw.columns:
        return item, np.zeros(raw.rows, bool)
    category = read_categories(raw.columns["category"])
    is_category = (item.codes < 0) & (category.codes >= 0)
    if not is_category.any():
        return item, is_category
    names = [*item.names, *map(category_id, category.names)]
    codes = np.where(is_category, category.codes + len(item.names), item.codes)
    return Column(codes, names), is_category


def _drop_invalid(
    rows: RowFilter, raw: _JoinedTables, columns: _Columns, schema: Schema, strict: bool
) -> None:
    """Apply the rules that judge each row by itself, in the order of the cleaning table."""
    rows.drop("no user id", columns.user.codes < 0)
    rows.drop("no item id", columns.item.codes < 0)
    if schema.cancelled is not None:
        rows.drop("cancelled", _is_cancelled(raw, *schema.cancelled, strict))
    if "quantity" in raw.columns:
        quantity = read_numbers(raw.columns["quantity"], schema.decimal)
        rows.drop("unreadable quantity", quantity.invalid)
        rows.drop("quantity <= 0", quantity.values <= 0)
    if columns.price is not None and schema.positive_price:
        rows.drop("price <= 0", ~(columns.price.values > 0))
    elif columns.price is not None:
        rows.counts["price unreadable (kept)"] = int(columns.price.invalid.sum())
    if columns.times is not None:
        rows.drop("unparsable time", columns.times.invalid)
        rows.drop("time out of range", columns.times.out_of_range)
    if schema.duplicates == "drop":
        rows.drop("duplicate", _is_duplicate(raw))


def _is_cancelled(raw: _JoinedTables, column: str, prefix: str, strict: bool) -> Bools:
    names = (f"{_OTHER}{column}", column, *(r for r, name in raw.roles.items() if name == column))
    name = next((name for name in names if name in raw.columns), None)
    if name is None and strict:
        found = ", ".join(name.removeprefix(_OTHER) for name in raw.columns)
        raise DataError(
            f"{raw.name}: no column {column!r} for cancellations; found {found}; "
            "correct cancelled in the schema"
        )
    if name is None:
        return np.zeros(raw.rows, bool)
    codes, names_of_codes = raw.columns[name]
    starts = np.array([*(text.startswith(prefix) for text in names_of_codes), False], bool)
    return starts[codes]


def _is_duplicate(raw: _JoinedTables) -> Bools:
    """Mark the rows that are equal to an earlier row in every column that has a name.

    A column without a name is the row number that a data frame wrote: it differs in every row. Rows
    that differ from all others in the columns so far are left out of the next comparison.
    """
    columns = [c for name, c in raw.columns.items() if not name.startswith(_OTHER + UNNAMED)]
    columns.sort(key=lambda column: -len(column.names))
    candidates = np.arange(raw.rows)
    key = np.zeros(raw.rows, np.int64)
    for codes, names in columns:
        pairs = key * (len(names) + 1) + codes[candidates] + 1
        _, key, count = np.unique(pairs, return_inverse=True, return_counts=True)
        repeated = count[key] > 1
        candidates, key = candidates[repeated], key[repeated]
    is_duplicate = np.zeros(raw.rows, bool)
    is_duplicate[candidates] = True
    is_duplicate[candidates[np.unique(key, return_index=True)[1]]] = False
    return is_duplicate


def _expand(rows: RowFilter, raw: _JoinedTables, schema: Schema) -> ExpandedRows:
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


def _read_events(rows: RowFilter, raw: _JoinedTables, schema: Schema) -> NDArray[np.int8]:
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


def _limit(
    rows: RowFilter, expanded: ExpandedRows, columns: _Columns, schema: Schema
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


def _first_of_pairs(row: Longs, columns: _Columns) -> Longs:
    """Return the first interaction of each (user, item) by time; at equal times, the first row."""
    order = np.lexsort((row, columns.time[row]))
    item = columns.item.codes
    pair = columns.user.codes[row] * (int(item.max()) + 1) + item[row]
    return np.sort(order[np.unique(pair[order], return_index=True)[1]])


def _newest_of_users(row: Longs, columns: _Columns, limit: int) -> Longs:
    """Return the ``limit`` newest interactions of each user; at equal times, the last rows."""
    order = np.lexsort((row, columns.time[row], columns.user.codes[row]))
    user = columns.user.codes[row][order]
    # 1 for a user's newest interaction, 2 for the one before, ...
    from_end = np.searchsorted(user, user, side="right") - np.arange(len(order))
    return np.sort(order[from_end <= limit])


def _labels(raw: _JoinedTables, role: str, rows: Longs) -> Column | None:
    return read_categories(raw.columns[role]).take(rows) if role in raw.columns else None


def _drop_reasons(rows: RowFilter) -> str:
    return ", ".join(
        f"{reason} {n}" for reason, n in rows.counts.items() if n and "(kept" not in reason
    )


def _unused_columns(raw: _JoinedTables, schema: Schema) -> tuple[str, ...]:
    used = schema.cancelled[0] if schema.cancelled else ""
    names = [name.removeprefix(_OTHER) for name in raw.columns if name.startswith(_OTHER)]
    return tuple(name for name in names if name != used)


def _format_roles(roles: Mapping[str, Any]) -> str:
    return ", ".join(f"{role} = {column!r}" for role, column in roles.items())


def _hint(raw: _JoinedTables, columns: _Columns) -> str:
    """Return what may be wrong with a log of which no row is usable."""
    unreadable = columns.reading.unreadable if columns.reading else None
    if unreadable is not None:
        return (
            f"; {unreadable!r:.60} is not a known form of time: "
            "set time_format under [clean] in a schema"
        )
    for role in ("quantity", *COUNT_EVENTS):
        texts = raw.columns[role].names if role in raw.columns else []
        if text := ambiguous_number(texts) or next((t for t in texts if "," in t), None):
            return f'; {text!r:.60} is not a number: set decimal = "," under [files] in a schema'
    return ""


def _notes(raw: _JoinedTables, columns: _Columns, schema: Schema) -> list[str]:
    """Return what is odd about the tables: a user should know it, but it may be right."""
    notes = []
    if "event" in raw.columns and (unknown := _unknown_events(raw, schema)):
        others = f" (and {len(unknown) - 1} others)" if len(unknown) > 1 else ""
        notes.append(
            f"event {unknown[0]!r:.60}{others} is not recognised and counts as other; "
            "name it under [events] in a schema"
        )
    for kind, column in (("user", columns.user), ("item", columns.item)):
        notes += _notes_on_missing(kind, column)
    if columns.reading is None and "timestamp" not in schema.interactions:
        names = [k.removeprefix(_OTHER) for k, v in raw.columns.items() if looks_like_dates(v)]
        question = f"; is {names[0]!r} the time? Name it in a schema" if names else ""
        notes.append(f"no time column: the order of the file counts{question}")
    if columns.reading and columns.reading.note:
        notes.append(f"times read as {columns.reading.form}: {columns.reading.note}")
    if columns.reading and columns.reading.unreadable is not None:
        notes.append(
            f"{columns.reading.unreadable!r:.60} is not a time, as the column is read; if it is "
            "one, set time_format under [clean] in a schema"
        )
    if columns.price is not None and (text := ambiguous_number(raw.columns["price"].names)):
        notes.append(f"price {text!r:.40} may have a decimal comma: set decimal under [files]")
    return notes


def _unknown_events(raw: _JoinedTables, schema: Schema) -> list[str]:
    names = read_categories(raw.columns["event"]).names
    return [name for name in names if schema.event_of(name) is None]


def _notes_on_missing(kind: str, column: Column) -> list[str]:
    return [
        f"{kind} {name!r} has {rows:,} rows; if it means that the {kind} is unknown, drop them: "
        f'missing = ["{name}"] under [clean] in a schema'
        for name, rows in common(column)
        if name.strip().lower() in MISSING_IDS
    ]
