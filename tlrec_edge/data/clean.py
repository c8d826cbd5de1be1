"""Raw interaction tables to clean columns, with a count for every row that went and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlrec_edge.choices import EVENTS
from tlrec_edge.data.dataset import EVENT_WEIGHTS
from tlrec_edge.data.parse import (
    CodedColumn,
    merge_duplicates,
    read_categories,
    read_ids,
    read_numbers,
    read_times,
)
from tlrec_edge.data.schema import Schema, find_roles, require_role, suggestion
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import COUNT_EVENTS, INTERACTION_NAMES
from tlrec_edge.types import Bools

Codes = NDArray[np.int64]
InteractionColumns = tuple[Codes, NDArray[np.int8], NDArray[np.float64]]
"""Row, event and weight of each interaction."""

NO_DOMAIN = "unknown"
"""Domain of a row whose domain cell is empty, or whose item has no metadata where items carry the domain."""


@dataclass
class RowFilter:
    """Rows still kept, and how many each reason took; a row counts for the first reason that hits it."""

    keep: Bools
    counts: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, invalid: Bools) -> None:
        self.counts[reason] = int((self.keep & invalid).sum())
        self.keep &= ~invalid


@dataclass(frozen=True)
class CleanLog:
    """Kept rows as columns of equal length; ``codes`` index the names beside them.

    ``domain`` is None where interactions carry none (the item's home domain counts then). ``is_category`` marks items
    that are categories. ``title``, ``category`` and ``price`` are what the log itself says about its items.
    """

    user: CodedColumn
    item: CodedColumn
    domain: CodedColumn | None
    event: NDArray[np.int8]
    weight: NDArray[np.float64]
    time: Codes
    is_category: Bools
    users: frozenset[str]
    counts: Mapping[str, int]
    roles: Mapping[str, str]
    unused: tuple[str, ...]
    title: CodedColumn | None = None
    category: CodedColumn | None = None
    price: NDArray[np.float64] | None = None

    def merge_items(self, item_map: Mapping[str, str]) -> CleanLog:
        """Give products of several ids their one id; the rows' domains stay as they were."""
        if not item_map:
            return self
        moved = np.array([name in item_map for name in self.item.names], bool)
        names = [item_map.get(name, name) for name in self.item.names]
        counts = {
            **self.counts,
            "item id replaced by item_map (rows)": int(moved[self.item.codes].sum()),
        }
        return replace(self, item=merge_duplicates(self.item.codes, names), counts=counts)


def join_tables(
    tables: Sequence[pd.DataFrame], schema: Schema, where: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Put tables under each other, their columns named by role; other columns are prefixed with "raw:"."""
    renamed, roles = [], {}
    for table in tables:
        found = find_roles(list(table.columns), schema.interactions, INTERACTION_NAMES, where)
        require_role(found, "user", list(table.columns), where)
        if "category" not in found:
            require_role(found, "item", list(table.columns), where)
        names = {column: role for role, column in found.items()}
        renamed.append(
            table.set_axis([names.get(name, f"raw:{name}") for name in table.columns], axis=1)
        )
        roles.update(found)
    return renamed[0] if len(renamed) == 1 else pd.concat(renamed, ignore_index=True), roles


def clean_interactions(
    tables: Sequence[pd.DataFrame], schema: Schema, where: str = "interactions"
) -> CleanLog:
    """Clean interaction tables by a schema. Raises DataError when no row is left, with the reasons.

    A row of aggregated counts becomes one interaction for each positive count, with
    weight = event weight * log1p(count); any other row weighs its event's weight. Where the item is empty and a
    category is given, the category stands as the item ``category:NAME``.
    """
    raw, roles = join_tables(tables, schema, where)
    row_filter = RowFilter(np.ones(len(raw), bool))
    user, (item, is_category) = read_ids(raw["user"]), _read_items(raw)
    row_filter.drop("no user id", user.codes < 0)
    row_filter.drop("no item id", item.codes < 0)
    _drop_cancelled(raw, schema, row_filter, where)
    price = _drop_numbers(raw, schema, row_filter)
    time = _drop_times(raw, schema, row_filter)
    _drop_duplicates(raw, schema, row_filter)
    row, event, weight = _expand_events(raw, schema, row_filter)
    if schema.duplicates == "first-pair":
        row, event, weight = _first_pairs(
            user.codes, item.codes, time, row_filter, (row, event, weight)
        )
    if schema.max_per_user:
        row, event, weight = _most_recent(
            user.codes, time, schema.max_per_user, row_filter, (row, event, weight)
        )
    if is_category.any():
        row_filter.counts["category instead of an item (kept)"] = int(
            (row_filter.keep & is_category).sum()
        )
    if not len(row):
        raise DataError(
            f"{where}: none of {len(raw)} rows is usable ({_drop_reasons(row_filter)}); check: {_format_roles(roles)}"
        )
    return CleanLog(
        user=CodedColumn(user.codes[row], user.names),
        item=CodedColumn(item.codes[row], item.names),
        domain=rename_domains(_labels(raw, "domain", row), schema, where),
        event=event,
        weight=weight,
        time=time[row],
        is_category=is_category[row],
        users=frozenset(user.names[code] for code in np.unique(user.codes[row])),
        counts={
            "rows read": len(raw),
            "rows kept": int(row_filter.keep.sum()),
            **row_filter.counts,
        },
        roles=roles,
        unused=_unused(raw, schema),
        title=_labels(raw, "title", row),
        category=_labels(raw, "category", row),
        price=None if price is None else price[row],
    )


def rename_domains(
    labels: CodedColumn | None, schema: Schema, where: str, check: bool = True
) -> CodedColumn | None:
    """Apply the schema's [domains]; an empty cell becomes the domain "unknown".

    With ``check`` a value that the schema renames but nobody has is an error: it is nearly always misspelt.
    """
    if labels is None:
        return None
    absent = [value for value in schema.domains if value not in (*labels.names, "*")]
    if absent and check:
        known = ", ".join(sorted(labels.names)[:30])
        raise DataError(
            f"{where}: no domain {absent[0]!r} to rename{suggestion(absent[0], labels.names)}; known: {known}"
        )
    names = [schema.domain_of(name) for name in labels.names]
    order = sorted({*names, NO_DOMAIN} if (labels.codes < 0).any() else set(names))
    position = {name: i for i, name in enumerate(order)}
    renumber = np.array(
        [position[name] for name in names] + [position.get(NO_DOMAIN, -1)], np.int64
    )
    return CodedColumn(renumber[labels.codes], order)


def category_id(name: str) -> str:
    """Return the id of the item that stands for a whole category."""
    return f"category:{name}"


def _labels(raw: pd.DataFrame, role: str, row: Codes) -> CodedColumn | None:
    if role not in raw:
        return None
    found = read_categories(raw[role])
    return CodedColumn(found.codes[row], found.names)


def _drop_reasons(row_filter: RowFilter) -> str:
    return ", ".join(
        f"{reason} {n}" for reason, n in row_filter.counts.items() if n and "(kept" not in reason
    )


def _unused(raw: pd.DataFrame, schema: Schema) -> tuple[str, ...]:
    used = schema.cancelled[0] if schema.cancelled else ""
    names = [name.removeprefix("raw:") for name in raw.columns if name.startswith("raw:")]
    return tuple(name for name in names if name != used)


def _read_items(raw: pd.DataFrame) -> tuple[CodedColumn, Bools]:
    item = (
        read_ids(raw["item"]) if "item" in raw else CodedColumn(np.full(len(raw), -1, np.int64), [])
    )
    if "category" not in raw:
        return item, np.zeros(len(raw), bool)
    category = read_categories(raw["category"])
    is_category = (item.codes < 0) & (category.codes >= 0)
    if not is_category.any():
        return item, is_category
    names = [*item.names, *map(category_id, category.names)]
    return CodedColumn(
        np.where(is_category, category.codes + len(item.names), item.codes), names
    ), is_category


def _drop_cancelled(raw: pd.DataFrame, schema: Schema, row_filter: RowFilter, where: str) -> None:
    if schema.cancelled is None:
        return
    column, prefix = schema.cancelled
    found = next((name for name in (f"raw:{column}", column) if name in raw), None)
    if found is None:
        columns = ", ".join(name.removeprefix("raw:") for name in raw.columns)
        raise DataError(f"{where}: no column {column!r} for cancellations; found {columns}")
    row_filter.drop("cancelled", raw[found].astype("str").str.startswith(prefix).to_numpy(bool))


def _drop_numbers(
    raw: pd.DataFrame, schema: Schema, row_filter: RowFilter
) -> NDArray[np.float64] | None:
    """Judge quantity and price; return the price."""
    if "quantity" in raw:
        quantity = read_numbers(raw["quantity"])
        row_filter.drop("unreadable quantity", quantity.invalid)
        row_filter.drop("quantity <= 0", quantity.values <= 0)
    if "price" not in raw:
        return None
    price = read_numbers(raw["price"])
    if schema.positive_price:
        row_filter.drop("price <= 0", ~(price.values > 0))
    else:
        row_filter.counts["price unreadable (kept)"] = int(price.invalid.sum())
    return price.values


def _drop_times(raw: pd.DataFrame, schema: Schema, row_filter: RowFilter) -> Codes:
    if "timestamp" not in raw:
        return np.zeros(len(raw), np.int64)
    times = read_times(raw["timestamp"], schema.time_format)
    row_filter.drop("unparsable time", times.invalid)
    row_filter.drop("time out of range", times.out_of_range)
    return times.seconds


def _drop_duplicates(raw: pd.DataFrame, schema: Schema, row_filter: RowFilter) -> None:
    if schema.duplicates == "drop":
        # A column without a name is a running number that a data frame wrote: it makes no row different.
        named = [name for name in raw.columns if not name.startswith("raw:Unnamed: ")]
        row_filter.drop("duplicate", raw.duplicated(named).to_numpy(bool))


def _expand_events(raw: pd.DataFrame, schema: Schema, row_filter: RowFilter) -> InteractionColumns:
    """Return row, event and weight of each interaction that the kept rows stand for."""
    weights = np.array(EVENT_WEIGHTS)
    counted = {event: raw[role] for role, event in COUNT_EVENTS.items() if role in raw}
    if not counted:
        event = _read_events(raw, schema, row_filter)
        rows = np.flatnonzero(row_filter.keep)
        return rows, event[rows], weights[event[rows]]
    numbers = {event: read_numbers(column) for event, column in counted.items()}
    row_filter.drop(
        "unreadable count", np.logical_or.reduce([column.invalid for column in numbers.values()])
    )
    row_filter.drop(
        "no positive count",
        ~np.logical_or.reduce([column.values > 0 for column in numbers.values()]),
    )
    parts = [
        (np.flatnonzero(row_filter.keep & (column.values > 0)), name)
        for name, column in numbers.items()
    ]
    rows = np.concatenate([rows for rows, _ in parts])
    event = np.concatenate(
        [np.full(len(rows), EVENTS.index(name), np.int8) for rows, name in parts]
    )
    weight = np.concatenate(
        [weights[EVENTS.index(name)] * np.log1p(numbers[name].values[rows]) for rows, name in parts]
    )
    order = np.argsort(rows, kind="stable")
    return rows[order], event[order], weight[order]


def _read_events(raw: pd.DataFrame, schema: Schema, row_filter: RowFilter) -> NDArray[np.int8]:
    default = EVENTS.index(schema.default_event)
    if "event" not in raw:
        return np.full(len(raw), default, np.int8)
    labels = read_categories(raw["event"])
    known = [schema.event_of(name) for name in labels.names]
    codes = np.array([EVENTS.index(name or "other") for name in known] + [default], np.int8)
    unknown = np.array([name is None for name in known] + [False])
    row_filter.counts["event not recognised (kept as other)"] = int(
        (row_filter.keep & unknown[labels.codes]).sum()
    )
    event: NDArray[np.int8] = codes[labels.codes]
    return event


def _first_pairs(
    user: Codes, item: Codes, time: Codes, row_filter: RowFilter, columns: InteractionColumns
) -> InteractionColumns:
    """Keep the first interaction of each (user, item) by time; of equal times, the first row."""
    rows = columns[0]
    order = np.lexsort((rows, time[rows]))
    pair = user[rows] * (int(item.max()) + 1) + item[rows]
    first = np.sort(order[np.unique(pair[order], return_index=True)[1]])
    return _keep_rows(first, "repeated pair", row_filter, columns)


def _most_recent(
    user: Codes, time: Codes, limit: int, row_filter: RowFilter, columns: InteractionColumns
) -> InteractionColumns:
    """Keep each user's ``limit`` newest interactions; of equal times, the last rows."""
    rows = columns[0]
    order = np.lexsort((rows, time[rows], user[rows]))
    by_user = user[rows][order]
    from_end = np.searchsorted(by_user, by_user, side="right") - np.arange(
        len(order)
    )  # 1 = the newest
    return _keep_rows(
        np.sort(order[from_end <= limit]),
        f"beyond the newest {limit} of a user",
        row_filter,
        columns,
    )


def _keep_rows(
    chosen: Codes, reason: str, row_filter: RowFilter, columns: InteractionColumns
) -> InteractionColumns:
    kept = np.zeros(len(row_filter.keep), bool)
    kept[columns[0][chosen]] = True
    row_filter.drop(reason, ~kept)
    return columns[0][chosen], columns[1][chosen], columns[2][chosen]


def _format_roles(roles: Mapping[str, Any]) -> str:
    return ", ".join(f"{role} = {column!r}" for role, column in roles.items())
