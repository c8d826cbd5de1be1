"""Items of two domains that are one product under two ids, from a file."""

from __future__ import annotations

from pathlib import Path

from tlrec_edge.data.parse import read_ids
from tlrec_edge.data.read import read_table
from tlrec_edge.errors import DataError


def read_item_map(path: Path) -> dict[str, str]:
    """Read pairs of ids of one product: columns ``from`` and ``to``, the id that stays."""
    table = read_table(path)
    if not {"from", "to"} <= set(table.columns):
        raise DataError(
            f"{path}: expected the columns from and to, found {', '.join(map(str, table.columns))}"
        )
    columns = []
    for name in ("from", "to"):
        labels = read_ids(table[name])
        columns.append([[*labels.names, ""][code] for code in labels.codes])
    found: dict[str, str] = {}
    for row, (one, other) in enumerate(zip(*columns, strict=True), 2):
        if not one or not other or found.setdefault(one, other) != other:
            wrong = (
                f"{one!r} goes to {found[one]!r} and {other!r}"
                if one and other
                else "an id is missing"
            )
            raise DataError(f"{path}: line {row}: {wrong}; expected one id in each column")
    return found
