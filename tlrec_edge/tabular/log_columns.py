"""Parse the columns of a log: ids, categories in place of items, prices and times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import Column, read_categories, read_ids
from tlrec_edge.tabular.join import JoinedTables, empty_column
from tlrec_edge.tabular.numbers import Numbers, read_numbers
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import TimeReading, Times, read_times
from tlrec_edge.types import Bools, Longs


class LogColumns(NamedTuple):
    """Columns over all raw rows: the rules read them, and ``CleanLog`` takes its rows from them."""

    user: Column
    item: Column
    is_category: Bools
    price: Numbers | None
    times: Times | None
    time: Longs
    reading: TimeReading | None


def category_id(name: str) -> str:
    """Return the id of the item that represents a whole category."""
    return f"category:{name}"


def read_log_columns(raw: JoinedTables, schema: Schema, strict: bool) -> LogColumns:
    """Parse the columns of a log. Raises DataError if the times are ambiguous."""
    columns = raw.columns
    item, is_category = _read_items(raw, schema)
    times, reading = None, None
    if "timestamp" in columns:
        try:
            times, reading = read_times(columns["timestamp"], schema.time_format, strict)
        except DataError as error:
            raise DataError(f"{raw.name}: {error}") from error
    return LogColumns(
        user=read_ids(columns["user"], schema.missing),
        item=item,
        is_category=is_category,
        price=read_numbers(columns["price"], schema.decimal) if "price" in columns else None,
        times=times,
        time=np.zeros(raw.rows, np.int64) if times is None else times.seconds,
        reading=reading,
    )


def _read_items(raw: JoinedTables, schema: Schema) -> tuple[Column, Bools]:
    """Return the items, and which of them are categories that replace a missing item."""
    item = read_ids(raw.columns.get("item", empty_column(raw.rows)), schema.missing)
    if "category" not in raw.columns:
        return item, np.zeros(raw.rows, bool)
    category = read_categories(raw.columns["category"])
    is_category = (item.codes < 0) & (category.codes >= 0)
    if not is_category.any():
        return item, is_category
    names = [*item.names, *map(category_id, category.names)]
    codes = np.where(is_category, category.codes + len(item.names), item.codes)
    return Column(codes, names), is_category
