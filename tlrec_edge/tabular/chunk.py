"""What the readers of files share: options, tables, the rows that they yield, what they notice."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import Column

UNNAMED = "Unnamed: "
"""Start of the name of a column without one: usually the row number that a data frame wrote."""
FRAME = "data frame"
"""The format of a table in memory."""
DOUBLE_COLON = "::"
"""The one separator of two characters that is read."""


@dataclass(frozen=True)
class FileOptions:
    """What a text file cannot say by itself.

    Attributes:
        encoding: name of the encoding of files that are not UTF-8; "" finds it.
        separator: text between cells; "" finds it, and so does a file whose first line lacks it.
        columns: names of the columns of files without a header line; empty if they have one.
    """

    encoding: str = ""
    separator: str = ""
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.encoding:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, ValueError) as error:
                raise DataError(
                    f"unknown encoding {self.encoding!r}; use utf-8, gb18030, cp949, cp1252 ..."
                ) from error
        if len(self.separator) > 1 and self.separator != DOUBLE_COLON:
            raise DataError(f"separator is {self.separator!r}, expected one character, or '::'")
        repeated = [name for name in self.columns if self.columns.count(name) > 1]
        if repeated:
            raise DataError(f"column {repeated[0]!r} is named twice; name each column once")

    def with_header(self) -> FileOptions:
        """Return the options for tables with a header line: pairs, users, items, test rows."""
        return replace(self, columns=())


@dataclass(frozen=True)
class Table:
    """A table whose columns are coded.

    Attributes:
        columns: the columns by name.
        rows: the number of rows.
        name: the file or the origin, for messages.
        formats: how each kind of file in it was read, such as "CSV, gb18030".
        notes: what a user should know about how it was read.
    """

    columns: Mapping[str, Column]
    rows: int
    name: str = "table"
    formats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_frame(self) -> bool:
        """Whether the table was in memory, so that no command read it."""
        return self.formats == (FRAME,)


class Chunk(NamedTuple):
    """Some rows of a table: texts by column, or coded columns. Columns may be absent."""

    columns: Mapping[str, Sequence[str] | Column]
    rows: int


@dataclass
class Facts:
    """What is noticed while a table is read."""

    formats: dict[str, None] = field(default_factory=dict)
    short_rows: int = 0
    repeated_headers: int = 0
    header: Sequence[str] = ()
    """The names of the columns of the last text file."""
