"""What is odd about a log: a user should know it, but it may be right."""

from __future__ import annotations

import json

from tlrec_edge.tabular.column import Column, common, read_categories
from tlrec_edge.tabular.column_names import COUNT_EVENTS
from tlrec_edge.tabular.join import OTHER, JoinedTables
from tlrec_edge.tabular.log_columns import LogColumns
from tlrec_edge.tabular.numbers import ambiguous_number
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import looks_like_dates

MISSING_IDS = frozenset(
    [
        "null",
        "nan",
        "none",
        "n/a",
        "na",
        "\\n",
        "undefined",
        "unknown",
        "nil",
        "(null)",
        "<na>",
        "#n/a",
    ]
)
"""Words that usually mean that an id is missing."""


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


def log_notes(raw: JoinedTables, columns: LogColumns, schema: Schema) -> list[str]:
    """Return what is odd about the tables: a user should know it, but it may be right."""
    notes = []
    if "event" in raw.columns and (unknown := _unknown_events(raw, schema)):
        others = f" (and {len(unknown) - 1} others)" if len(unknown) > 1 else ""
        notes.append(
            f"event {unknown[0]!r:.60}{others} is not recognised and counts as other; "
            "name it under [events] in a schema"
        )
    for kind, column in (("user", columns.user), ("item", columns.item)):
        notes += _notes_on_missing(kind, column)
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
    if columns.price is not None and (text := ambiguous_number(raw.columns["price"].names)):
        notes.append(f"price {text!r:.40} may have a decimal comma: set decimal under [files]")
    return notes


def _unknown_events(raw: JoinedTables, schema: Schema) -> list[str]:
    names = read_categories(raw.columns["event"]).names
    return [name for name in names if schema.event_of(name) is None]


def _notes_on_missing(kind: str, column: Column) -> list[str]:
    return [
        f"{kind} {name!r} has {rows:,} rows; if it means that the {kind} is unknown, drop them: "
        f"missing = [{json.dumps(name, ensure_ascii=False)}] under [clean] in a schema"
        for name, rows in common(column)
        if name.strip().lower() in MISSING_IDS
    ]
