"""Read the histories of users from an interaction table, by the rules of ``prepare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.runtime.history import History
from tlrec_edge.tabular.clean import CleanLog, clean_interactions
from tlrec_edge.tabular.column_names import COUNT_EVENTS
from tlrec_edge.tabular.schema import Schema, schema_of
from tlrec_edge.tabular.tables import read_table


def read_histories(
    path: Path,
    progress: Callable[[str], None] = lambda line: None,
    schema: Schema | Mapping[str, Any] | None = None,
    strict: bool = True,
) -> dict[str, History]:
    """Return the history of every user in an interaction table, by user id.

    Columns, events, times and ids are read, and rows are left out, as ``prepare`` does it with the
    same schema.

    Args:
        path: the table; see ``read_table``.
        progress: called with lines that say how the table was read and what was left out.
        schema: roles of the columns and cleaning rules; by default columns are found by their
            common names. ``Recommender.schema`` is that of the model's training.
        strict: whether columns and domains that the schema names must occur.

    Returns:
        The histories.

    Raises:
        DataError: if the file cannot be read, a column is missing or no row is usable.
    """
    schema = schema_of(schema)
    log = clean_interactions([read_table(path, schema.files)], schema, str(path), strict)
    for line in (*_left_out(log), *log.notes):
        progress(f"{path}: {line}")
    return histories_of(log.merge_items(schema.item_map), schema)


def histories_of(log: CleanLog, schema: Schema) -> dict[str, History]:
    """Return the history of every user of a clean log, without the schema's dropped domains."""
    rows = np.arange(len(log.time))
    if log.domain is not None and schema.drop_domains:
        dropped = np.array([name in schema.drop_domains for name in log.domain.names], bool)
        rows = rows[~dropped[log.domain.codes]]
    order = rows[np.argsort(log.user.codes[rows], kind="stable")]
    users, starts = np.unique(log.user.codes[order], return_index=True)
    has_events = not {"event", *COUNT_EVENTS}.isdisjoint(log.roles)
    has_events |= schema.default_event != Schema.default_event
    histories = {}
    for code, of_user in zip(users, np.split(order, starts[1:]), strict=True):
        items = [log.item.names[item] for item in log.item.codes[of_user].tolist()]
        events = log.event[of_user].tolist() if has_events else None
        times = log.time[of_user].tolist() if log.reading is not None else None
        histories[log.user.names[code]] = History(items, events, times)
    return histories


def _left_out(log: CleanLog) -> list[str]:
    counts = {reason: n for reason, n in log.counts.items() if n and not reason.startswith("rows ")}
    dropped = [f"{reason} {n:,}" for reason, n in counts.items() if "(kept" not in reason]
    kept = [f"{reason} {n:,}" for reason, n in counts.items() if "(kept" in reason]
    lines = [f"rows left out: {', '.join(dropped)}"] if dropped else []
    return lines + [f"rows kept: {', '.join(kept)}" for _ in kept[:1]]
