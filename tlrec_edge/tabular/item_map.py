"""The item map: a file of products that have two ids."""

from __future__ import annotations

from pathlib import Path

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import read_ids
from tlrec_edge.tabular.tables import read_table


def read_item_map(path: Path) -> dict[str, str]:
    """Read pairs of ids of one product: column ``from``, and column ``to`` with the id that stays.

    Raises DataError that names the file and the line if a row lacks an id or contradicts another.
    """
    columns = read_table(path).columns
    if not {"from", "to"} <= set(columns):
        found = ", ".join(columns)
        raise DataError(f"{path}: expected the columns from and to, found {found}")
    pairs = (read_ids(columns[name]).texts() for name in ("from", "to"))
    item_map: dict[str, str] = {}
    for line, (old, new) in enumerate(zip(*pairs, strict=True), 2):
        if not old or not new:
            raise DataError(f"{path}: line {line}: an id is missing; fill it in or remove the line")
        if item_map.setdefault(old, new) != new:
            raise DataError(
                f"{path}: line {line}: {old!r} is mapped to {item_map[old]!r} and to {new!r}; "
                "keep one of the two"
            )
    return item_map
