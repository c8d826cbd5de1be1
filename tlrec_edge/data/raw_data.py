"""The raw tables of a dataset after cleaning, and the numbering of their ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tlrec_edge.data.domains import home_domains
from tlrec_edge.data.eval_rows import RawEvalRows, split_ids
from tlrec_edge.data.items import RawItems, empty_items, read_items
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import Table
from tlrec_edge.tabular.clean import CleanLog, clean_interactions
from tlrec_edge.tabular.column import Column, sort_ids
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.types import Bools, Ints


@dataclass(frozen=True)
class RawData:
    """The clean log, the item rows, and the domain of each item that has one."""

    log: CleanLog
    items: RawItems
    item_domains: Mapping[str, str]

    def merge_items(self, item_map: Mapping[str, str]) -> RawData:
        """Replace item ids by the map.

        The domain of a merged item is that of the id that stays, if that id has one.
        """
        names = (*self.log.item.names, *self.items.ids)
        if item_map and not any(name in item_map for name in names):
            raise DataError(
                f"none of the {len(item_map)} ids in column from of item_map is in the data; "
                "swap from and to?"
            )
        domains = self.item_domains.items()
        merged = {item_map[name]: domain for name, domain in domains if name in item_map}
        unchanged = {name: domain for name, domain in domains if name not in item_map}
        return RawData(
            self.log.merge_items(item_map),
            self.items.merge_items(item_map),
            {**merged, **unchanged},
        )


class Ids(NamedTuple):
    """All ids in order, and the row of each; ``item_row`` knows ids that the item map replaces."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    user_row: Mapping[str, int]
    item_row: Mapping[str, int]


def read_raw(
    interactions: Sequence[Table],
    items: Sequence[Table],
    schema: Schema,
    table_name: str,
    items_name: str,
) -> RawData:
    """Clean the tables. Raises DataError if they cannot be used, or fit no domain of the schema."""
    log = clean_interactions(interactions, schema, table_name)
    raw_items = empty_items()
    if items:
        raw_items = read_items(items, schema, items_name, check_domains=log.domain is None)
    if schema.domains and log.domain is None and raw_items.domain is None:
        raise DataError(
            "the schema has [domains] but no table has a domain column; "
            'name it in the schema: domain = "column"'
        )
    return RawData(log, raw_items, home_domains(log, raw_items))


def collect_ids(raw: RawData, keep: Bools, schema: Schema, eval_rows: Sequence[RawEvalRows]) -> Ids:
    """Collect the ids of the kept interactions, the item tables and the evaluation rows.

    A user whose interactions were all in dropped domains stays: folds are drawn over all users of
    the clean log, so they do not depend on which domains are dropped.
    """
    log, item_map = raw.log, schema.item_map
    users = set(log.users)
    items = {log.item.names[code] for code in np.unique(log.item.codes[keep])}
    items |= {i for i in raw.items.ids if raw.item_domains.get(i) not in schema.drop_domains}
    known = dict.fromkeys((*items, *item_map), 0)
    for rows in eval_rows:
        users.update(rows.users)
        names = (name for cell in rows.item_cells for name in split_ids(cell, known))
        items.update(item_map.get(name, name) for name in names)
    user_ids, item_ids = _in_order(users), _in_order(items)
    user_row, item_row = row_of(user_ids), row_of(item_ids)
    replaced = {old: item_row[new] for old, new in item_map.items() if new in item_row}
    return Ids(user_ids, item_ids, user_row, item_row | replaced)


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    # Sorted as strings first: ids of equal number, such as 7 and 007, get a fixed order.
    by_text = sorted(names)
    return tuple(by_text[i] for i in sort_ids(by_text))


def row_of(names: Sequence[str]) -> dict[str, int]:
    """Return the index of each name."""
    return {name: row for row, name in enumerate(names)}


def rows_of(column: Column, row: Mapping[str, int]) -> Ints:
    """Return the row of each value of a column, -1 for a value that has none."""
    rows = np.array([row.get(name, -1) for name in column.names], np.int32)
    of_values: Ints = rows[column.codes]
    return of_values
