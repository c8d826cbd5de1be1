"""What is odd about a log: a user should know it, but it may be right."""

from __future__ import annotations

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.tabular.column import Column, common, read_categories
from tlrec_edge.tabular.column_names import COUNT_EVENTS
from tlrec_edge.tabular.id_notes import id_notes
from tlrec_edge.tabular.join import OTHER, JoinedTables
from tlrec_edge.tabular.log_columns import LogColumns
from tlrec_edge.tabular.numbers import ambiguous_number, number_notes
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import looks_like_dates
from tlrec_edge.types import Longs


def hint(raw: JoinedTables, columns: LogColumns) -> str:
    """Return what may be wrong with a log of which no row is usable."""
    unreadable = columns.reading.unreadable if columns.reading else None
    if unreadable is not None:
        return (
            f"; {unreadable!r:.60} is not a known form of time: "
            "set time_format under [clean] in a schema"
        )
    for role in ("quantity", *COUNT_EVENTS):
        texts = raw.columns[role].names if role in raw.columns else []
        if text := ambiguous_number(texts) or next((t for t in texts if "," in t), None):
            return f'; {text!r:.60} is not a number: set decimal = "," under [files] in a schema'
    return ""


def log_notes(raw: JoinedTables, columns: LogColumns, schema: Schema, kept: Longs) -> list[str]:
    """Return what is odd about the tables: a user should know it, but it may be right.

    ``kept`` are the raw rows that are used.
    """
    notes = []
    for role, column in raw.columns.items():
        if role == "event":
            notes += _event_notes(column.take(kept), schema)
        elif role in ("user", "item"):
            notes += id_notes(role, column, schema.missing)
        elif role in ("quantity", "price", *COUNT_EVENTS):
            notes += number_notes(role, column, schema.decimal)
    if columns.reading is None and "timestamp" not in schema.interactions:
        names = [k.removeprefix(OTHER) for k, v in raw.columns.items() if looks_like_dates(v)]
        question = f"; is {names[0]!r} the time? Name it in a schema" if names else ""
        notes.append(f"no time column: the order of the file counts{question}")
    if columns.reading and columns.reading.note:
        notes.append(f"times read as {columns.reading.form}: {columns.reading.note}")
    if columns.reading and columns.reading.unreadable is not None:
        notes.append(
            f"{columns.reading.unreadable!r:.60} is not a time, as the column is read; if it is "
            "one, set time_format under [clean] in a schema"
        )
    return notes


def _event_notes(column: Column, schema: Schema) -> list[str]:
    labels = read_categories(column)
    notes = []
    unknown = [name for name, rows in common(labels) if rows and schema.event_of(name) is None]
    if unknown:
        others = f" (and {counted(len(unknown) - 1, 'other')})" if len(unknown) > 1 else ""
        notes.append(
            f"event {unknown[0]!r:.60}{others} is not recognised and counts as other; "
            "name it under [events] in a schema"
        )
    if blank := int(np.count_nonzero(labels.codes < 0)):
        rows = counted(blank, "row has no event and counts", "rows have no event and count")
        notes.append(f"{rows} as {schema.default_event}")
    return notes
