"""Read columns of ids from tables of any size: pairs to score, users to recommend to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import Column, are_float_ids, are_whole, column_of, plain_ids
from tlrec_edge.tabular.column_names import INTERACTION_NAMES
from tlrec_edge.tabular.roles import find_roles, require_role
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.tables import read_chunks


class IdCells(NamedTuple):
    """Ids of one column.

    Attributes:
        written: as the table has them.
        ids: as the data of the training has them: "16.0" is 16 if the column has only such ids.
    """

    written: list[str]
    ids: list[str]


def read_id_chunks(
    path: Path, roles: Sequence[str], schema: Schema, rows: int
) -> Iterator[dict[str, IdCells]]:
    """Yield the ids of some roles, at most ``rows`` rows at once; blank ids stay blank.

    Raises DataError if the table cannot be read or lacks a column, or if its ids are written in two
    ways: some rows as 16.0, others as text.
    """
    has_floats, has_texts = set[str](), set[str]()
    for chunk in read_chunks(path, schema.files.with_header(), rows):
        names = list(chunk.columns)
        found = find_roles(names, schema.interactions, INTERACTION_NAMES, str(path), strict=False)
        cells = {}
        for role in roles:
            require_role(found, role, names, str(path), section=None)
            column = chunk.columns[found[role]]
            column = column if isinstance(column, Column) else column_of(column)
            if are_float_ids(column.names):
                has_floats.add(role)
            elif not are_whole(column.names):
                has_texts.add(role)
            if role in has_floats & has_texts:
                raise DataError(
                    f"{path}: the ids of column {found[role]!r} are written in two ways, as 16.0 "
                    "and as text; write them in one"
                )
            ids = Column(column.codes, plain_ids(column.names))
            cells[role] = IdCells(column.texts(), ids.texts())
        yield cells
