"""Join interaction tables into one, with columns named by their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tlrec_edge.tabular.chunk import Table
from tlrec_edge.tabular.column import Column, concatenate
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, normalize_key
from tlrec_edge.tabular.roles import find_roles, require_role
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import join_clock, looks_like_clock, looks_like_dates

OTHER = "raw:"
"""Prefix of columns without a role."""


class JoinedTables(NamedTuple):
    """Several tables as one, with columns by role; other columns have the prefix "raw:"."""

    columns: Mapping[str, Column]
    rows: int
    roles: Mapping[str, str]
    name: str
    notes: tuple[str, ...]


def join_tables(
    tables: Sequence[Table], schema: Schema, table_name: str, strict: bool
) -> JoinedTables:
    """Concatenate tables by the roles of their columns.

    Raises DataError if a table lacks a user column, or has neither an item nor a category column.
    """
    renamed: list[dict[str, Column]] = []
    roles: dict[str, str] = {}
    notes: dict[str, None] = {}
    for table in tables:
        names = list(table.columns)
        found = find_roles(names, schema.interactions, INTERACTION_NAMES, table_name, strict)
        for role in ("user",) if "category" in found else ("user", "item"):
            require_role(found, role, names, table_name, "interactions", table.is_frame)
        found, columns = _with_clock(table, found, schema)
        role_of = {column: role for role, column in found.items()}
        renamed.append({role_of.get(k, f"{OTHER}{k}"): v for k, v in columns.items()})
        roles.update(found)
        notes.update(dict.fromkeys(table.notes))
    if len(renamed) == 1:
        return JoinedTables(renamed[0], tables[0].rows, roles, table_name, tuple(notes))
    all_names = dict.fromkeys(name for columns in renamed for name in columns)
    rows = [table.rows for table in tables]
    joined = {
        name: concatenate(c.get(name, empty_column(n)) for c, n in zip(renamed, rows, strict=True))
        for name in all_names
    }
    return JoinedTables(joined, sum(rows), roles, table_name, tuple(notes))


def empty_column(rows: int) -> Column:
    """Return a column of missing values."""
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
