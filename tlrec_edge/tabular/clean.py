"""Interaction tables to clean columns, with a count of every row that was dropped and why.

Training and serving read a log by these rules: ``prepare`` builds a dataset from the result, and
``histories.py`` builds the users' histories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.counts import counted
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import UNNAMED, Table
from tlrec_edge.tabular.column import Column, merge_duplicates, read_categories
from tlrec_edge.tabular.expand import RowFilter, expand, limit
from tlrec_edge.tabular.join import OTHER, JoinedTables, join_tables
from tlrec_edge.tabular.log_columns import LogColumns, read_log_columns
from tlrec_edge.tabular.log_notes import hint, log_notes
from tlrec_edge.tabular.numbers import read_numbers
from tlrec_edge.tabular.roles import found_columns, suggestion
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import TimeReading
from tlrec_edge.types import Bools, Doubles, Longs

NO_DOMAIN = "unknown"
"""Domain of a row that names none: its cell is empty, or the item table does not list its item."""
MAX_NAMES_SHOWN = 30


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


def clean_interactions(
    tables: Sequence[Table], schema: Schema, table_name: str = "interactions", strict: bool = True
) -> CleanLog:
    """Clean interaction tables by a schema; ``table_name`` names them in error messages.

    A row of counts (views, purchases ...) becomes one interaction for each positive count, of
    weight ``event weight * log1p(count)``. Any other row has its event's weight. A row without an
    item but with a category is an interaction with the item ``category:NAME``.

    Unless ``strict``, columns and domains that the schema names need not occur: a log to be scored
    may lack what the log of the training had.

    Raises DataError if a column is missing or no row is usable; the message counts the rows that
    each rule dropped.
    """
    if not any(table.rows for table in tables):
        raise DataError(f"{table_name}: the table has no rows; expected at least one row of data")
    raw = join_tables(tables, schema, table_name, strict)
    columns = read_log_columns(raw, schema, strict)
    rows = RowFilter(np.ones(raw.rows, bool))
    _drop_invalid(rows, raw, columns, schema, strict)
    expanded = expand(rows, raw, schema)
    expanded = limit(rows, expanded, columns, schema)
    if columns.is_category.any():
        rows.note("category instead of an item", columns.is_category)
    if not len(expanded.row):
        raise DataError(
            f"{table_name}: none of {counted(raw.rows, 'row')} is usable ({rows.reasons}); "
            f"check: {_format_roles(raw.roles)}{hint(raw, columns)}"
        )
    kept = expanded.row
    domain = _labels(raw, "domain", kept)
    user, item = columns.user, columns.item
    return CleanLog(
        user=user.take(kept),
        item=item.take(kept),
        domain=rename_domains(domain, schema),
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
        notes=(
            *raw.notes,
            *log_notes(raw, columns, schema, kept),
            *(notes_on_domains(domain, schema, table_name) if strict else ()),
        ),
    )


def notes_on_domains(labels: Column | None, schema: Schema, table_name: str) -> list[str]:
    """Say which domains that the schema renames do not occur, as in a part of a log.

    Raises DataError if one is similar to a domain that the schema does not name: it is misspelt.
    """
    if labels is None:
        return []
    absent = [value for value in schema.domains if value not in (*labels.names, "*")]
    others = [name for name in labels.names if name not in schema.domains]
    known = ", ".join(sorted(labels.names)[:MAX_NAMES_SHOWN])
    for name in absent:
        if similar := suggestion(name, others):
            raise DataError(
                f"{table_name}: no domain {name!r} to rename{similar}; known: {known}; correct "
                "[domains] in the schema"
            )
    names = ", ".join(map(repr, absent[:MAX_NAMES_SHOWN]))
    return [f"no domain {names}, which [domains] renames; known: {known}" for _ in absent[:1]]


def rename_domains(labels: Column | None, schema: Schema) -> Column | None:
    """Rename domains by the schema; an empty cell becomes the domain "unknown"."""
    if labels is None:
        return None
    names = [schema.domain_of(name) for name in labels.names]
    in_order = sorted({*names, NO_DOMAIN} if (labels.codes < 0).any() else set(names))
    index = {name: i for i, name in enumerate(in_order)}
    # The last entry is for code -1, the empty cells.
    recode = np.array([*(index[name] for name in names), index.get(NO_DOMAIN, -1)], np.int64)
    return Column(recode[labels.codes], in_order)


def _drop_invalid(
    rows: RowFilter, raw: JoinedTables, columns: LogColumns, schema: Schema, strict: bool
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


def _is_cancelled(raw: JoinedTables, column: str, prefix: str, strict: bool) -> Bools:
    names = (f"{OTHER}{column}", column, *(r for r, name in raw.roles.items() if name == column))
    name = next((name for name in names if name in raw.columns), None)
    if name is None and strict:
        columns = [raw.roles.get(name, name.removeprefix(OTHER)) for name in raw.columns]
        raise DataError(
            f"{raw.name}: no column {column!r} for cancellations; "
            f"{found_columns(column, columns)}; correct cancelled in the schema"
        )
    if name is None:
        return np.zeros(raw.rows, bool)
    codes, names_of_codes = raw.columns[name]
    starts = np.array([*(text.startswith(prefix) for text in names_of_codes), False], bool)
    return starts[codes]


def _is_duplicate(raw: JoinedTables) -> Bools:
    """Mark the rows that are equal to an earlier row in every column that has a name.

    A column without a name is the row number that a data frame wrote: it differs in every row. Rows
    that differ from all others in the columns so far are left out of the next comparison.
    """
    columns = [c for name, c in raw.columns.items() if not name.startswith(OTHER + UNNAMED)]
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


def _labels(raw: JoinedTables, role: str, rows: Longs) -> Column | None:
    return read_categories(raw.columns[role]).take(rows) if role in raw.columns else None


def _unused_columns(raw: JoinedTables, schema: Schema) -> tuple[str, ...]:
    used = schema.cancelled[0] if schema.cancelled else ""
    names = [name.removeprefix(OTHER) for name in raw.columns if name.startswith(OTHER)]
    return tuple(name for name in names if name != used)


def _format_roles(roles: Mapping[str, Any]) -> str:
    return ", ".join(f"{role} = {column!r}" for role, column in roles.items())
