"""Raw interaction tables to clean columns, with a count of every row that was dropped and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlrec_edge.choices import EVENTS
from tlrec_edge.data.dataset import EVENT_WEIGHTS
from tlrec_edge.data.parse import (
    CodedColumn,
    Numbers,
    Times,
    merge_duplicates,
    read_categories,
    read_ids,
    read_numbers,
    read_times,
)
from tlrec_edge.data.schema import Schema, find_roles, require_role, suggestion
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import COUNT_EVENTS, INTERACTION_NAMES
from tlrec_edge.types import Bools, Doubles, Longs

NO_DOMAIN = "unknown"
"""Domain of a row that names none: its cell is empty, or the item table does not list its item."""
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
    """

    user: CodedColumn
    item: CodedColumn
    domain: CodedColumn | None
    event: NDArray[np.int8]
    weight: Doubles
    time: Longs
    is_category: Bools
    users: frozenset[str]
    counts: Mapping[str, int]
    roles: Mapping[str, str]
    unused: tuple[str, ...]
    title: CodedColumn | None = None
    category: CodedColumn | None = None
    price: Doubles | None = None

    def merge_items(self, item_map: Mapping[str, str]) -> CleanLog:
        """Replace the item ids that the map contains; the domain of a row does not change."""
        if not item_map:
            return self
        is_mapped = np.array([name in item_map for name in self.item.names], bool)
        names = [item_map.get(name, name) for name in self.item.names]
        replaced = int(is_mapped[self.item.codes].sum())
        counts = {**self.counts, "item id replaced by item_map (rows)": replaced}
        return replace(self, item=merge_duplicates(self.item.codes, names), counts=counts)


class _Columns(NamedTuple):
    """Columns over all raw rows: the rules read them, and ``CleanLog`` takes its rows from them."""

    user: CodedColumn
    item: CodedColumn
    is_category: Bools
    price: Numbers | None
    times: Times | None
    time: Longs


def join_tables(
    tables: Sequence[pd.DataFrame], schema: Schema, table_name: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Concatenate tables, with columns named by role; other columns get the prefix "raw:".

    Raises DataError if a table has no column for the user, or none for the item or a category.
    """
    renamed, roles = [], {}
    for table in tables:
        table_roles = find_roles(
            list(table.columns), schema.interactions, INTERACTION_NAMES, table_name
        )
        for role in ("user",) if "category" in table_roles else ("user", "item"):
            require_role(table_roles, role, list(table.columns), table_name, "interactions")
        role_of = {column: role for role, column in table_roles.items()}
        names = [role_of.get(name, f"{_OTHER}{name}") for name in table.columns]
        renamed.append(table.set_axis(names, axis=1))
        roles.update(table_roles)
    return renamed[0] if len(renamed) == 1 else pd.concat(renamed, ignore_index=True), roles


def clean_interactions(
    tables: Sequence[pd.DataFrame], schema: Schema, table_name: str = "interactions"
) -> CleanLog:
    """Clean interaction tables by a schema; ``table_name`` names them in error messages.

    A row of counts (views, purchases ...) becomes one interaction for each positive count, of
    weight ``event weight * log1p(count)``. Any other row has its event's weight. A row without an
    item but with a category is an interaction with the item ``category:NAME``.

    Raises DataError if a column is missing or if no row can be used, with the number of rows that
    each rule dropped.
    """
    raw, roles = join_tables(tables, schema, table_name)
    columns = _read_columns(raw, schema)
    rows = RowFilter(np.ones(len(raw), bool))
    _drop_invalid(rows, raw, columns, schema, table_name)
    expanded = _expand(rows, raw, schema)
    expanded = _limit(rows, expanded, columns, schema)
    if columns.is_category.any():
        rows.note("category instead of an item", columns.is_category)
    if not len(expanded.row):
        raise DataError(
            f"{table_name}: none of {len(raw)} rows is usable ({_drop_reasons(rows)}); "
            f"check: {_format_roles(roles)}"
        )
    kept = expanded.row
    user, item = columns.user, columns.item
    return CleanLog(
        user=_take(user, kept),
        item=_take(item, kept),
        domain=rename_domains(_labels(raw, "domain", kept), schema, table_name),
        event=expanded.event,
        weight=expanded.weight,
        time=columns.time[kept],
        is_category=columns.is_category[kept],
        users=frozenset(user.names[code] for code in np.unique(user.codes[kept])),
        counts={"rows read": len(raw), "rows kept": int(rows.keep.sum()), **rows.counts},
        roles=roles,
        unused=_unused_columns(raw, schema),
        title=_labels(raw, "title", kept),
        category=_labels(raw, "category", kept),
        price=None if columns.price is None else columns.price.values[kept],
    )


def rename_domains(
    labels: CodedColumn | None, schema: Schema, table_name: str, check: bool = True
) -> CodedColumn | None:
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
    return CodedColumn(recode[labels.codes], in_order)


def category_id(name: str) -> str:
    """Return the id of the item that represents a whole category."""
    return f"category:{name}"


def _read_columns(raw: pd.DataFrame, schema: Schema) -> _Columns:
    item, is_category = _read_items(raw)
    times = read_times(raw["timestamp"], schema.time_format) if "timestamp" in raw else None
    return _Columns(
        user=read_ids(raw["user"]),
        item=item,
        is_category=is_category,
        price=read_numbers(raw["price"]) if "price" in raw else None,
        times=times,
        time=np.zeros(len(raw), np.int64) if times is None else times.seconds,
    )


def _read_items(raw: pd.DataFrame) -> tuple[CodedColumn, Bools]:
    """Return the items, and which of them are categories that replace a missing item."""
    if "item" in raw:
        item = read_ids(raw["item"])
    else:
        item = CodedColumn(np.full(len(raw), -1, np.int64), [])
    if "category" not in raw:
        return item, np.zeros(len(raw), bool)
    category = read_categories(raw["category"])
    is_category = (item.codes < 0) & (category.codes >= 0)
    if not is_category.any():
        return item, is_category
    names = [*item.names, *map(category_id, category.names)]
    codes = np.where(is_category, category.codes + len(item.names), item.codes)
    return CodedColumn(codes, names), is_category


def _drop_invalid(
    rows: RowFilter, raw: pd.DataFrame, columns: _Columns, schema: Schema, table_name: str
) -> None:
    """Apply the rules that judge each row by itself, in the order of the cleaning table."""
    rows.drop("no user id", columns.user.codes < 0)
    rows.drop("no item id", columns.item.codes < 0)
    if schema.cancelled is not None:
        rows.drop("cancelled", _is_cancelled(raw, *schema.cancelled, table_name))
    if "quantity" in raw:
        quantity = read_numbers(raw["quantity"])
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


def _is_cancelled(raw: pd.DataFrame, column: str, prefix: str, table_name: str) -> Bools:
    name = next((name for name in (f"{_OTHER}{column}", column) if name in raw), None)
    if name is None:
        found = ", ".join(name.removeprefix(_OTHER) for name in raw.columns)
        raise DataError(
            f"{table_name}: no column {column!r} for cancellations; found {found}; "
            "correct cancelled in the schema"
        )
    return raw[name].astype("str").str.startswith(prefix).to_numpy(bool)


def _is_duplicate(raw: pd.DataFrame) -> Bools:
    # A column without a name is the row number that a data frame wrote: it differs in every row.
    named = [name for name in raw.columns if not name.startswith(f"{_OTHER}Unnamed: ")]
    return raw.duplicated(named).to_numpy(bool)


def _expand(rows: RowFilter, raw: pd.DataFrame, schema: Schema) -> ExpandedRows:
    """Return the interactions of the kept rows: one per positive count, or one per row."""
    counts = {event: read_numbers(raw[role]) for role, event in COUNT_EVENTS.items() if role in raw}
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


def _read_events(rows: RowFilter, raw: pd.DataFrame, schema: Schema) -> NDArray[np.int8]:
    default = EVENTS.index(schema.default_event)
    if "event" not in raw:
        return np.full(len(raw), default, np.int8)
    labels = read_categories(raw["event"])
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


def _take(column: CodedColumn, rows: Longs) -> CodedColumn:
    return CodedColumn(column.codes[rows], column.names)


def _labels(raw: pd.DataFrame, role: str, rows: Longs) -> CodedColumn | None:
    return _take(read_categories(raw[role]), rows) if role in raw else None


def _drop_reasons(rows: RowFilter) -> str:
    return ", ".join(
        f"{reason} {n}" for reason, n in rows.counts.items() if n and "(kept" not in reason
    )


def _unused_columns(raw: pd.DataFrame, schema: Schema) -> tuple[str, ...]:
    used = schema.cancelled[0] if schema.cancelled else ""
    names = [name.removeprefix(_OTHER) for name in raw.columns if name.startswith(_OTHER)]
    return tuple(name for name in names if name != used)


def _format_roles(roles: Mapping[str, Any]) -> str:
    return ", ".join(f"{role} = {column!r}" for role, column in roles.items())
