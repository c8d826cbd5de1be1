"""Item tables with one row for each property, as Retailrocket's: a column of each frequent one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tlrec_edge.tabular.chunk import Table
from tlrec_edge.tabular.column import Column, common
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, ITEM_NAMES, normalize_key
from tlrec_edge.tabular.times import read_times
from tlrec_edge.types import Longs

_PROPERTY, _VALUE = ("property", "attribute", "属性"), ("value", "值", "属性值")
_MIN_SHARE = 0.05
"""Share of the items that must have a property for it to become a column."""
_MAX_COLUMNS = 50


def widen_properties(table: Table) -> Table:
    """Return a table of items, properties and values with one row for each item.

    The newest value of a property counts, by the column of times if there is one, else by the order
    of the rows. Any other table stays as it is: it has further columns, or none of these.
    """
    columns = _long_columns(table)
    if columns is None:
        return table
    item, names, value = (columns[role] for role in ("item", "property", "value"))
    known = np.flatnonzero((item.codes >= 0) & (names.codes >= 0))
    rows = known[_newest(columns, known)]
    counts = list(common(names.take(rows)))
    items, position = np.unique(item.codes[rows], return_inverse=True)
    frequent = [name for name, n in counts if n >= _MIN_SHARE * len(items)][:_MAX_COLUMNS]
    code_of = {name: code for code, name in enumerate(names.names)}
    wide = {"item": Column(items, item.names)}
    for name in frequent:
        has = names.codes[rows] == code_of[name]
        codes = np.full(len(items), -1, np.int64)
        codes[position[has]] = value.codes[rows[has]]
        wide[name] = Column(codes, value.names)
    note = f"one row for each property: {len(frequent):,} of {len(counts):,} properties are columns"
    rare = f" (the others have less than {_MIN_SHARE:.0%} of the items)"
    note += rare if len(frequent) < len(counts) else ""
    return replace(table, columns=wide, rows=len(items), notes=(*table.notes, note))


def _long_columns(table: Table) -> Mapping[str, Column] | None:
    """Return the columns by role, None if the table does not consist of just these."""
    roles = {
        "item": ITEM_NAMES["item"],
        "property": _PROPERTY,
        "value": _VALUE,
        "timestamp": INTERACTION_NAMES["timestamp"],
    }
    found = {}
    for name, column in table.columns.items():
        role = next((r for r, known in roles.items() if normalize_key(name) in known), None)
        if role is None or role in found:
            return None
        found[role] = column
    return found if {"item", "property", "value"} <= set(found) else None


def _newest(columns: Mapping[str, Column], rows: Longs) -> Longs:
    """Return the indices into ``rows`` of the newest row of each item and property."""
    time = np.arange(len(rows))
    if "timestamp" in columns:
        time = read_times(columns["timestamp"])[0].seconds[rows]
    item, names = columns["item"].codes[rows], columns["property"].codes[rows]
    order = np.lexsort((np.arange(len(rows)), time, names, item))
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (item[order][1:] != item[order][:-1]) | (names[order][1:] != names[order][:-1])
    return order[is_last]
