"""Raw item tables to typed features, one row an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from tlrec_edge.data.clean import CleanLog, category_id, rename_domains
from tlrec_edge.data.dataset import ItemTable
from tlrec_edge.data.parse import (
    CodedColumn,
    count_numbers,
    read_categories,
    read_ids,
    read_numbers,
)
from tlrec_edge.data.schema import Schema, find_roles, require_role, suggestion
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, ITEM_NAMES, normalize_key
from tlrec_edge.types import Floats, Longs

MAX_GUESSED_CATEGORIES = 1000
"""A column with more distinct values than this is text, unless the schema declares it otherwise."""
MIN_NUMERIC_SHARE = 0.9
"""A column is numeric if at least this share of its values are numbers."""
_CODE_SUFFIXES = ("id", "code", "编号", "编码")
_TEXT_NAMES = frozenset(INTERACTION_NAMES["title"])


@dataclass(frozen=True)
class RawItems:
    """The rows of the item tables, one per item.

    Attributes:
        ids: the item ids.
        frame: all columns of the tables.
        kinds: kind of each column that is a feature: text, categorical or numeric.
        domain: each item's own domain; None if the tables have no domain column.
        name_column: the column of display names, "" for none.
        category_column: the column of categories, "" for none.
        counts: rows read and rows dropped.
    """

    ids: tuple[str, ...]
    frame: pd.DataFrame
    kinds: Mapping[str, str]
    domain: CodedColumn | None = None
    name_column: str = ""
    category_column: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def merge_items(self, item_map: Mapping[str, str]) -> RawItems:
        """Keep one row of an item with several ids: that of the id that stays, else the first."""
        if not item_map or not self.ids:
            return self
        # A stable sort: rows whose id stays come first, and each group keeps its order.
        by_preference = sorted(range(len(self.ids)), key=lambda row: self.ids[row] in item_map)
        first: dict[str, int] = {}
        for row in by_preference:
            first.setdefault(item_map.get(self.ids[row], self.ids[row]), row)
        rows = list(first.values())
        domain = self.domain
        if domain is not None:
            domain = CodedColumn(domain.codes[rows], domain.names)
        counts = {**self.counts, "item rows merged by item_map": len(self.ids) - len(rows)}
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return replace(self, ids=tuple(first), frame=frame, domain=domain, counts=counts)

    def texts(self, column: str, items: Sequence[str]) -> tuple[str, ...]:
        """Return a column as text, one value per item of ``items``, "" if missing.

        Raises DataError if the item tables have no such column.
        """
        if column not in self.frame:
            found = list(map(str, self.frame.columns))
            raise DataError(
                f"no column {column!r} in the items{suggestion(column, found)}; "
                f"found {', '.join(found) or 'none'}"
            )
        return _select(_as_text(self.frame[column]), self.rows_of(items))

    def rows_of(self, items: Sequence[str]) -> Longs:
        """Return the row of each item, -1 if the tables do not list it."""
        row_of = {name: row for row, name in enumerate(self.ids)}
        return np.array([row_of.get(item, -1) for item in items], np.int64)


def empty_items() -> RawItems:
    """Return the rows of no item table."""
    return RawItems((), pd.DataFrame(), {})


def read_items(
    tables: Sequence[pd.DataFrame],
    schema: Schema,
    table_name: str = "items",
    check_domains: bool = True,
) -> RawItems:
    """Concatenate item tables and find the kind of each feature column.

    If an item has several rows, the first counts. ``table_name`` names the tables in error
    messages. With ``check_domains``, a domain that the schema renames must occur. Raises DataError
    if a column is missing.
    """
    frame, ids, roles = _join_tables(tables, schema, table_name)
    missing_id, repeated = (ids == "").to_numpy(bool), ids.duplicated().to_numpy(bool)
    keep = ~missing_id & ~repeated
    frame = frame[keep].reset_index(drop=True)
    domain = read_categories(frame[roles["domain"]]) if "domain" in roles else None
    return RawItems(
        ids=tuple(ids[keep]),
        frame=frame,
        kinds=_feature_kinds(frame, roles, schema),
        domain=rename_domains(domain, schema, table_name, check_domains),
        name_column=roles.get("name", ""),
        category_column=roles.get("category", ""),
        counts={
            "item rows read": len(keep),
            "item rows without id": int(missing_id.sum()),
            "item rows repeated": int((repeated & ~missing_id).sum()),
        },
    )


def _join_tables(
    tables: Sequence[pd.DataFrame], schema: Schema, table_name: str
) -> tuple[pd.DataFrame, pd.Series[Any], dict[str, str]]:
    roles: dict[str, str] = {}
    ids = []
    for table in tables:
        table_roles = find_roles(list(table.columns), schema.items, ITEM_NAMES, table_name)
        require_role(table_roles, "item", list(table.columns), table_name, "items")
        _check_declared(schema, table.columns, table_name)
        roles.update(table_roles)
        ids.append(_ids_as_text(table[table_roles["item"]]))
    return pd.concat(tables, ignore_index=True), pd.concat(ids, ignore_index=True), roles


def _feature_kinds(frame: pd.DataFrame, roles: Mapping[str, str], schema: Schema) -> dict[str, str]:
    """Return the kind of each feature column; the domain is one only if the schema declares it."""
    kinds = {}
    for column in frame.columns:
        kind = schema.features.get(column)
        if kind is None and column not in (roles["item"], roles.get("domain")):
            kind = _guess_kind(column, frame[column], roles)
        if kind not in (None, "ignore"):
            kinds[column] = kind
    return kinds


def _ids_as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    labels = read_ids(column)
    return pd.Series(np.array([*labels.names, ""], object)[labels.codes], dtype=object)


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
        names = _select(_as_text(raw.frame[raw.name_column]), rows)
    features = _Features(names)
    n_unreadable = 0
    for column, kind in raw.kinds.items():
        if kind == "numeric":
            numbers = read_numbers(raw.frame[column])
            n_unreadable += int(numbers.invalid.sum())
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite: missing
                values = np.append(numbers.values, np.nan)[rows].astype(np.float32)
            features.numeric[column] = values
        else:
            group = features.text if kind == "text" else features.categorical
            group[column] = _select(_as_text(raw.frame[column]), rows)
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
        median = pd.Series(log.price).groupby(log.item.codes).median()
        price_of = {
            log.item.names[int(code)]: price
            for code, price in zip(median.index, median, strict=True)
        }
        prices = [price_of.get(item, np.nan) for item in items]
        features.numeric["price"] = np.array(prices, np.float32)


def _most_frequent(log: CleanLog, labels: CodedColumn, items: Sequence[str]) -> tuple[str, ...]:
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
    for column in schema.features:
        if column not in columns:
            raise DataError(
                f"{table_name}: no column {column!r}, which the schema declares as a feature; "
                f"found {', '.join(columns)}{suggestion(column, columns)}"
            )


def _guess_kind(column: str, values: pd.Series[Any], roles: Mapping[str, str]) -> str:
    if column == roles.get("category"):
        return "categorical"
    if column == roles.get("name") or normalize_key(column) in _TEXT_NAMES:
        return "text"
    labels = read_categories(values)
    n_present = int((labels.codes >= 0).sum())
    is_code = normalize_key(column).endswith(_CODE_SUFFIXES) or pd.api.types.is_bool_dtype(values)
    # A column of numbers may hold a few words: they become missing values, and are counted.
    if n_present and not is_code and count_numbers(values) >= MIN_NUMERIC_SHARE * n_present:
        return "numeric"
    limit = min(MAX_GUESSED_CATEGORIES, max(20, n_present // 2))
    return "categorical" if len(labels.names) <= limit else "text"


def _as_text(column: pd.Series[Any]) -> list[str]:
    labels = read_categories(column)
    names = [*labels.names, ""]
    return [names[code] for code in labels.codes]


def _select(values: list[str], rows: Longs) -> tuple[str, ...]:
    values = [*values, ""]  # for row -1
    return tuple(values[row] for row in rows)
