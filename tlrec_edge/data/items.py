"""Raw item tables to typed features, one row an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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

_MAX_CATEGORIES = 1000
_CODE_SUFFIXES = ("id", "code", "编号", "编码")
_TEXT_NAMES = frozenset(INTERACTION_NAMES["title"])


@dataclass(frozen=True)
class RawItems:
    """Item rows before they are lined up with the log: first row of an item wins.

    ``home`` holds each row's domain (None: the tables have none). ``columns`` are the feature columns with their kinds.
    """

    ids: tuple[str, ...]
    frame: pd.DataFrame
    kinds: Mapping[str, str]
    home: CodedColumn | None = None
    name_column: str = ""
    category_column: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def merge_items(self, item_map: Mapping[str, str]) -> RawItems:
        """Keep one row of a product that has several ids: that of the id that stays, else the first."""
        if not item_map or not self.ids:
            return self
        retained_first = sorted(
            range(len(self.ids)), key=lambda row: self.ids[row] in item_map
        )  # stable
        first: dict[str, int] = {}
        for row in retained_first:
            first.setdefault(item_map.get(self.ids[row], self.ids[row]), row)
        rows = list(first.values())
        home = None if self.home is None else CodedColumn(self.home.codes[rows], self.home.names)
        counts = {**self.counts, "item rows merged by item_map": len(self.ids) - len(rows)}
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return replace(self, ids=tuple(first), frame=frame, home=home, counts=counts)

    def texts(self, column: str, items: Sequence[str]) -> tuple[str, ...]:
        """Return any column as text, one value an item, "" where missing. Raises DataError where there is none."""
        if column not in self.frame:
            found = list(map(str, self.frame.columns))
            raise DataError(
                f"no column {column!r} in the items{suggestion(column, found)}; found {', '.join(found)}"
            )
        position = self.row
        return _select(
            _as_text(self.frame[column]),
            np.array([position.get(item, -1) for item in items], np.int64),
        )


def empty_items() -> RawItems:
    """Return what stands for a missing item file."""
    return RawItems((), pd.DataFrame(), {})


def read_items(
    tables: Sequence[pd.DataFrame], schema: Schema, where: str = "items", check_domains: bool = True
) -> RawItems:
    """Merge item tables and tell what kind of feature each column is."""
    frame, ids, roles = _join_tables(tables, schema, where)
    missing_id, repeated = (ids == "").to_numpy(bool), ids.duplicated().to_numpy(bool)
    keep = ~missing_id & ~repeated
    frame = frame[keep].reset_index(drop=True)
    home = read_categories(frame[roles["domain"]]) if "domain" in roles else None
    return RawItems(
        ids=tuple(ids[keep]),
        frame=frame,
        kinds=_feature_kinds(frame, roles, schema),
        home=rename_domains(home, schema, where, check_domains),
        name_column=roles.get("name", ""),
        category_column=roles.get("category", ""),
        counts={
            "item rows read": len(keep),
            "item rows without id": int(missing_id.sum()),
            "item rows repeated": int((repeated & ~missing_id).sum()),
        },
    )


def _join_tables(
    tables: Sequence[pd.DataFrame], schema: Schema, where: str
) -> tuple[pd.DataFrame, pd.Series[Any], dict[str, str]]:
    roles: dict[str, str] = {}
    ids = []
    for table in tables:
        found = find_roles(list(table.columns), schema.items, ITEM_NAMES, where)
        require_role(found, "item", list(table.columns), where)
        _check_declared(schema, table.columns, where)
        roles.update(found)
        ids.append(read_ids_as_text(table[found["item"]]))
    return pd.concat(tables, ignore_index=True), pd.concat(ids, ignore_index=True), roles


def _feature_kinds(frame: pd.DataFrame, roles: Mapping[str, str], schema: Schema) -> dict[str, str]:
    """Return the kind of each column that is a feature; the id never is, the domain only when it is declared."""
    kinds = {}
    for column in frame.columns:
        declared = schema.features.get(column)
        if declared is None and column not in (roles["item"], roles.get("domain")):
            declared = _guess_kind(column, frame[column], roles)
        if declared not in (None, "ignore"):
            kinds[column] = declared
    return kinds


def read_ids_as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return ids as text, "" where missing."""
    labels = read_ids(column)
    return pd.Series(np.array([*labels.names, ""], object)[labels.codes], dtype=object)


def build_item_table(raw: RawItems, log: CleanLog, items: Sequence[str]) -> tuple[ItemTable, int]:
    """Build the item table for ``items``; also return how many numbers were made missing.

    Without an item file they are described by the log: the most frequent title and category, the median price. (Beside
    a file this would give away which items are sold later: those that have a price.)
    """
    position = raw.row
    rows = np.array([position.get(item, -1) for item in items], np.int64)
    text: dict[str, tuple[str, ...]] = {}
    categorical: dict[str, tuple[str, ...]] = {}
    numeric: dict[str, NDArray[np.float32]] = {}
    unreadable = 0
    for column, kind in raw.kinds.items():
        if kind == "numeric":
            numbers = read_numbers(raw.frame[column])
            unreadable += int(numbers.invalid.sum())
            with np.errstate(over="ignore"):  # beyond float32: infinite, so missing
                numeric[column] = np.append(numbers.values, np.nan)[rows].astype(np.float32)
        else:
            (text if kind == "text" else categorical)[column] = _select(
                _as_text(raw.frame[column]), rows
            )
    names = (
        _select(_as_text(raw.frame[raw.name_column]), rows)
        if raw.name_column
        else ("",) * len(items)
    )
    names = _add_log_features(raw, log, items, names, (text, categorical, numeric))
    display_names = tuple(name or item for name, item in zip(names, items, strict=True))
    return ItemTable(
        name=display_names, text=text, categorical=categorical, numeric=numeric
    ), unreadable


def _add_log_features(
    raw: RawItems,
    log: CleanLog,
    items: Sequence[str],
    names: tuple[str, ...],
    features: tuple[
        dict[str, tuple[str, ...]], dict[str, tuple[str, ...]], dict[str, NDArray[np.float32]]
    ],
) -> tuple[str, ...]:
    """Fill features in place from the log's own columns; return the display names."""
    text, categorical, numeric = features
    if log.category is not None:
        column = raw.category_column if raw.category_column in categorical else "category"
        labels = {category_id(name): name for name in log.category.names}
        logged_values = _from_log(log, log.category, items) if not raw.ids else ("",) * len(items)
        listed_values = categorical.get(column, ("",) * len(items))
        categorical[column] = tuple(
            a or labels.get(item, b)
            for a, b, item in zip(listed_values, logged_values, items, strict=True)
        )
        names = tuple(name or labels.get(item, "") for name, item in zip(names, items, strict=True))
    if raw.ids:
        return names
    if log.title is not None:
        titles = _from_log(log, log.title, items)
        text["title"] = titles
        names = tuple(title or name for title, name in zip(titles, names, strict=True))
    if log.price is not None:
        median = pd.Series(log.price).groupby(log.item.codes).median()
        by_name = {
            log.item.names[int(code)]: value
            for code, value in zip(median.index, median, strict=True)
        }
        numeric["price"] = np.array([by_name.get(item, np.nan) for item in items], np.float32)
    return names


def _from_log(log: CleanLog, labels: CodedColumn, items: Sequence[str]) -> tuple[str, ...]:
    """Return each item's most frequent label, "" where it has none; of equals, the one seen first."""
    best: dict[str, str] = {}
    keep = labels.codes >= 0
    pair = log.item.codes[keep] * (len(labels.names) + 1) + labels.codes[keep]
    pairs, counts = np.unique(pair, return_counts=True)
    for i in np.lexsort((-pairs, counts)):  # rising counts: the last one written wins
        best[log.item.names[pairs[i] // (len(labels.names) + 1)]] = labels.names[
            pairs[i] % (len(labels.names) + 1)
        ]
    return tuple(best.get(item, "") for item in items)


def _check_declared(schema: Schema, columns: Iterable[str], where: str) -> None:
    columns = list(columns)
    for column in schema.features:
        if column not in columns:
            raise DataError(
                f"{where}: no column {column!r}; found {', '.join(columns)}{suggestion(column, columns)}"
            )


def _guess_kind(column: str, values: pd.Series[Any], roles: Mapping[str, str]) -> str:
    if column == roles.get("category"):
        return "categorical"
    if column == roles.get("name") or normalize_key(column) in _TEXT_NAMES:
        return "text"
    labels = read_categories(values)
    present = int((labels.codes >= 0).sum())
    is_code = normalize_key(column).endswith(_CODE_SUFFIXES) or pd.api.types.is_bool_dtype(values)
    # A column of numbers may hold a few other words: they become missing, and are counted.
    if present and not is_code and count_numbers(values) >= 0.9 * present:
        return "numeric"
    few = len(labels.names) <= min(_MAX_CATEGORIES, max(20, present // 2))
    return "categorical" if few else "text"


def _as_text(column: pd.Series[Any]) -> list[str]:
    labels = read_categories(column)
    names = [*labels.names, ""]
    return [names[code] for code in labels.codes]


def _select(values: list[str], rows: NDArray[np.int64]) -> tuple[str, ...]:
    values = [*values, ""]
    return tuple(values[row] for row in rows)
