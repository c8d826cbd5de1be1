"""Raw item tables to typed features, one row an item."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.data.dataset import ItemTable
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import UNNAMED, Table
from tlrec_edge.tabular.clean import CleanLog, notes_on_domains, rename_domains
from tlrec_edge.tabular.column import (
    Column,
    concatenate,
    merge_duplicates,
    read_categories,
    read_ids,
)
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, ITEM_NAMES, normalize_key
from tlrec_edge.tabular.id_notes import id_notes
from tlrec_edge.tabular.log_columns import category_id
from tlrec_edge.tabular.numbers import (
    ambiguous_number,
    count_numbers,
    number_notes,
    read_numbers,
)
from tlrec_edge.tabular.properties import widen_properties
from tlrec_edge.tabular.roles import find_roles, found_columns, require_role
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.types import Doubles, Floats, Longs

MAX_GUESSED_CATEGORIES = 1000
"""A column with more distinct values than this is text, unless the schema declares it otherwise."""
MIN_NUMERIC_SHARE = 0.9
"""A column is numeric if at least this share of its values are numbers."""
_LIST_SEPARATOR = "|"
_MIN_JOINED = 0.1
"""Share of the distinct cells that must have a separator for a note on it."""
_CODE_SUFFIXES = ("id", "code", "编号", "编码")
_TEXT_NAMES = frozenset(INTERACTION_NAMES["title"])


@dataclass(frozen=True)
class RawItems:
    """The rows of the item tables, one per item.

    Attributes:
        ids: the item ids.
        columns: all columns of the tables.
        kinds: kind of each column that is a feature: text, categorical or numeric.
        domain: each item's own domain; None if the tables have no domain column.
        name_column: the column of display names, "" for none.
        category_column: the column of categories, "" for none.
        counts: rows read and rows dropped.
        lists: column with several categories in a cell to the text between them.
        decimal: decimal mark of the numbers, "" if each column shows it.
        notes: what a user should know about how the tables were read.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Column]
    kinds: Mapping[str, str]
    domain: Column | None = None
    name_column: str = ""
    category_column: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    decimal: str = ""
    notes: tuple[str, ...] = ()

    def merge_items(self, item_map: Mapping[str, str]) -> RawItems:
        """Keep one row of an item with several ids: that of the id that stays, else the first."""
        if not item_map or not self.ids:
            return self
        # A stable sort: rows whose id stays come first, and each group keeps its order.
        by_preference = sorted(range(len(self.ids)), key=lambda row: self.ids[row] in item_map)
        first: dict[str, int] = {}
        for row in by_preference:
            first.setdefault(item_map.get(self.ids[row], self.ids[row]), row)
        rows = np.fromiter(first.values(), np.int64, len(first))
        domain = None if self.domain is None else self.domain.take(rows)
        counts = {**self.counts, "item rows merged by item_map": len(self.ids) - len(rows)}
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return replace(self, ids=tuple(first), columns=columns, domain=domain, counts=counts)

    def texts(self, column: str, items: Sequence[str]) -> tuple[str, ...]:
        """Return a column as text, one value per item of ``items``, "" if missing.

        Raises DataError if the item tables have no such column.
        """
        if column not in self.columns:
            raise DataError(
                f"no column {column!r} in the items; {found_columns(column, self.columns)}"
            )
        return _select(_as_text(self.columns[column]), self.rows_of(items))

    def rows_of(self, items: Sequence[str]) -> Longs:
        """Return the row of each item, -1 if the tables do not list it."""
        row_of = {name: row for row, name in enumerate(self.ids)}
        return np.array([row_of.get(item, -1) for item in items], np.int64)


def empty_items() -> RawItems:
    """Return the rows of no item table."""
    return RawItems((), {}, {})


def read_items(
    tables: Sequence[Table],
    schema: Schema,
    table_name: str = "items",
    check_domains: bool = True,
) -> RawItems:
    """Concatenate item tables and find the kind of each feature column.

    If an item has several rows, the first counts. ``table_name`` names the tables in error
    messages. With ``check_domains``, a domain that the schema renames must occur. Raises DataError
    if a column is missing.
    """
    tables = [widen_properties(table) for table in tables]
    joined, written_ids, roles = _join_tables(tables, schema, table_name)
    ids = concatenate(read_ids(column, schema.missing) for column in written_ids)
    remarks = id_notes("item", concatenate(written_ids), schema.missing)
    missing = ids.codes < 0
    first_rows = np.unique(ids.codes, return_index=True)[1]
    keep = np.zeros(len(ids.codes), bool)
    keep[first_rows] = True
    keep &= ~missing
    rows = np.flatnonzero(keep)
    columns = {name: column.take(rows) for name, column in joined.items()}
    domain = read_categories(columns[roles["domain"]]) if "domain" in roles else None
    kinds = _feature_kinds(columns, roles, schema)
    return RawItems(
        ids=tuple(ids.names[code] for code in ids.codes[rows]),
        columns=columns,
        kinds=kinds,
        domain=rename_domains(domain, schema),
        name_column=roles.get("name", ""),
        category_column=roles.get("category", ""),
        counts={
            "item rows read": len(keep),
            "item rows without id": int(missing.sum()),
            "item rows repeated": int((~keep & ~missing).sum()),
        },
        lists=schema.lists,
        decimal=schema.decimal,
        notes=(
            *(note for table in tables for note in table.notes),
            *(f"item table: {remark}" for remark in remarks),
            *(notes_on_domains(domain, schema, table_name) if check_domains else ()),
            *_notes_on_repeats(joined, ids),
            *_notes_on_kinds(columns, kinds, schema),
        ),
    )


def _join_tables(
    tables: Sequence[Table], schema: Schema, table_name: str
) -> tuple[dict[str, Column], list[Column], dict[str, str]]:
    """Return the columns of all tables, the ids of each as they are written, and the roles."""
    roles: dict[str, str] = {}
    ids = []
    for table in tables:
        names = list(table.columns)
        table_roles = find_roles(names, schema.items, ITEM_NAMES, table_name)
        require_role(table_roles, "item", names, table_name, "items", table.is_frame)
        _check_declared(schema, names, table_name)
        roles.update(table_roles)
        ids.append(table.columns[table_roles["item"]])
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    columns = {
        name: concatenate(
            table.columns.get(name, Column(np.full(table.rows, -1, np.int64), []))
            for table in tables
        )
        for name in names
    }
    return columns, ids, roles


def _feature_kinds(
    columns: Mapping[str, Column], roles: Mapping[str, str], schema: Schema
) -> dict[str, str]:
    """Return the kind of each feature column; the domain is one only if the schema declares it."""
    kinds = {}
    for name, column in columns.items():
        kind = "text" if name in schema.lists else schema.features.get(name)
        is_feature = name not in (roles["item"], roles.get("domain"))
        if kind is None and is_feature and not name.startswith(UNNAMED):
            kind = _guess_kind(name, column, roles, schema.decimal)
        if kind is not None and kind != "ignore":
            kinds[name] = kind
    return kinds


def _notes_on_repeats(columns: Mapping[str, Column], ids: Column) -> list[str]:
    """Say how many items have several rows that differ."""
    order = np.argsort(ids.codes, kind="stable")
    codes = ids.codes[order]
    same_item = (codes[1:] == codes[:-1]) & (codes[1:] >= 0)
    if not same_item.any():
        return []
    differs = np.zeros(len(same_item), bool)
    for column in columns.values():
        cells = column.codes[order]
        differs |= cells[1:] != cells[:-1]
    items = np.unique(codes[1:][same_item & differs])
    if not len(items):
        return []
    return [
        f"{counted(len(items), 'item has', 'items have')} rows that differ, "
        f"first {ids.names[items[0]]!r:.60}; "
        "the first row of an item counts"
    ]


def _notes_on_kinds(
    columns: Mapping[str, Column], kinds: Mapping[str, str], schema: Schema
) -> list[str]:
    """Name the columns whose cells look like numbers or lists, but are not read as such."""
    notes = []
    for name, kind in kinds.items():
        if kind == "numeric":
            notes += number_notes(name, columns[name], schema.decimal)
        elif name in schema.features or name in schema.lists:
            continue
        elif text := ambiguous_number(columns[name].names):
            notes.append(
                f"{name} is taken as {kind}: {text!r:.40} may have a decimal comma; "
                "set decimal under [files] in a schema"
            )
        elif normalize_key(name) in INTERACTION_NAMES["price"] and columns[name].names:
            notes.append(
                f"{name} is taken as {kind}: {columns[name].names[0]!r:.40} is not a number"
            )
        elif kind == "categorical" and (joined := _joined_category(columns[name].names)):
            key = json.dumps(name, ensure_ascii=False)
            notes.append(
                f"{name} is taken as {kind}: {joined!r:.60} is one category; if it is several, set "
                f'list = {{ {key} = "{_LIST_SEPARATOR}" }} under [items] in a schema'
            )
    return notes


def _joined_category(names: Sequence[str]) -> str | None:
    """Return a cell that looks like several categories; None if few do, or no part recurs."""
    joined = [name for name in names if _LIST_SEPARATOR in name.strip(_LIST_SEPARATOR)]
    if len(joined) < max(2, _MIN_JOINED * len(names)):
        return None
    parts = Counter(part.strip() for name in names for part in name.split(_LIST_SEPARATOR))
    repeated = (n for part, n in parts.items() if part and n > 1)
    return joined[0] if any(repeated) else None


@dataclass
class _Features:
    """The feature columns of the items while they are filled."""

    names: tuple[str, ...]
    text: dict[str, tuple[str, ...]] = field(default_factory=dict)
    categorical: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numeric: dict[str, Floats] = field(default_factory=dict)


def build_item_table(raw: RawItems, log: CleanLog, items: Sequence[str]) -> tuple[ItemTable, int]:
    """Build the item table for ``items``, and count the numbers that could not be read.

    Without item tables the items are described by the log: their most frequent title and category,
    their median price. With item tables the log adds no such column: only items that were sold
    would have a price, which would give away the items of the test period.
    """
    rows = raw.rows_of(items)
    names = ("",) * len(items)
    if raw.name_column:
        names = _select(_as_text(raw.columns[raw.name_column]), rows)
    features = _Features(names)
    n_unreadable = 0
    for column, kind in raw.kinds.items():
        if kind == "numeric":
            numbers = read_numbers(raw.columns[column], raw.decimal)
            n_unreadable += int(numbers.invalid.sum())
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite: missing
                values = np.append(numbers.values, np.nan)[rows].astype(np.float32)
            features.numeric[column] = values
        else:
            group = features.text if kind == "text" else features.categorical
            texts = raw.columns[column]
            if separator := raw.lists.get(column):
                texts = _words_of_lists(texts, separator)
            group[column] = _select(_as_text(texts), rows)
    if log.category is not None:
        _add_categories(features, raw, log, items)
    if not raw.ids:
        _add_log_features(features, log, items)
    display_names = (name or item for name, item in zip(features.names, items, strict=True))
    table = ItemTable(tuple(display_names), features.text, features.categorical, features.numeric)
    return table, n_unreadable


def _add_categories(
    features: _Features, raw: RawItems, log: CleanLog, items: Sequence[str]
) -> None:
    """Name the items that represent a category; add the log's categories if items have no table."""
    if log.category is None:
        return
    column = raw.category_column if raw.category_column in features.categorical else "category"
    missing = ("",) * len(items)
    label_of = {category_id(name): name for name in log.category.names}
    from_log = missing if raw.ids else _most_frequent(log, log.category, items)
    listed = features.categorical.get(column, missing)
    features.categorical[column] = tuple(
        value or label_of.get(item, logged)
        for value, logged, item in zip(listed, from_log, items, strict=True)
    )
    named = zip(features.names, items, strict=True)
    features.names = tuple(name or label_of.get(item, "") for name, item in named)


def _add_log_features(features: _Features, log: CleanLog, items: Sequence[str]) -> None:
    """Describe the items by the titles and prices of the log."""
    if log.title is not None:
        titles = _most_frequent(log, log.title, items)
        features.text["title"] = titles
        named = zip(titles, features.names, strict=True)
        features.names = tuple(title or name for title, name in named)
    if log.price is not None:
        prices = _medians(log, log.price, items)
        features.numeric["price"] = np.array(prices, np.float32)


def _medians(log: CleanLog, values: Doubles, items: Sequence[str]) -> list[float]:
    """Return each item's median value, NaN if it has none."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.lexsort((values[known], log.item.codes[known]))]
    codes, start, count = np.unique(log.item.codes[order], return_index=True, return_counts=True)
    low, high = values[order[start + (count - 1) // 2]], values[order[start + count // 2]]
    medians = zip(codes, (low + high) / 2, strict=True)
    median_of = {log.item.names[code]: float(median) for code, median in medians}
    return [median_of.get(item, np.nan) for item in items]


def _most_frequent(log: CleanLog, labels: Column, items: Sequence[str]) -> tuple[str, ...]:
    """Return each item's most frequent label, "" if it has none; of equals, the one seen first."""
    best: dict[str, str] = {}
    width = len(labels.names) + 1
    present = labels.codes >= 0
    pairs, counts = np.unique(
        log.item.codes[present] * width + labels.codes[present], return_counts=True
    )
    for i in np.lexsort((-pairs, counts)):  # ascending counts: the last one written wins
        item, label = divmod(int(pairs[i]), width)
        best[log.item.names[item]] = labels.names[label]
    return tuple(best.get(item, "") for item in items)


def _check_declared(schema: Schema, columns: Iterable[str], table_name: str) -> None:
    columns = list(columns)
    declared = {**dict.fromkeys(schema.features, "feature"), **dict.fromkeys(schema.lists, "list")}
    for column, kind in declared.items():
        if column not in columns:
            raise DataError(
                f"{table_name}: no column {column!r}, which the schema declares as a {kind}; "
                f"{found_columns(column, columns)}"
            )


def _guess_kind(name: str, column: Column, roles: Mapping[str, str], decimal: str) -> str:
    if name == roles.get("category"):
        return "categorical"
    if name == roles.get("name") or normalize_key(name) in _TEXT_NAMES:
        return "text"
    labels = read_categories(column)
    n_present = int((labels.codes >= 0).sum())
    is_code = normalize_key(name).endswith(_CODE_SUFFIXES)
    # A column of numbers may hold a few words: they become missing values, and are counted.
    if (
        n_present
        and not is_code
        and count_numbers(column, decimal) >= MIN_NUMERIC_SHARE * n_present
    ):
        return "numeric"
    limit = min(MAX_GUESSED_CATEGORIES, max(20, n_present // 2))
    return "categorical" if len(labels.names) <= limit else "text"


def _as_text(column: Column) -> list[str]:
    return read_categories(column).texts()


def _words_of_lists(column: Column, separator: str) -> Column:
    """Return cells such as "Action|Science fiction" as texts with one word for each category."""
    names = [
        " ".join(re.sub(r"\W+", "_", part.strip()) for part in name.split(separator))
        for name in column.names
    ]
    return merge_duplicates(column.codes, names)


def _select(values: list[str], rows: Longs) -> tuple[str, ...]:
    values = [*values, ""]  # for row -1
    return tuple(values[row] for row in rows)
