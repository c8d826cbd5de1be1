"""A column of a table as codes into its distinct texts, which are parsed once each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tlrec_edge.types import Longs

_FLOAT_ID = re.compile(r"-?\d+\.0+")
_INTEGER_ID = re.compile(r"-?(0|[1-9]\d*)")
_NOT_A_NUMBER = ("nan", "inf", "-inf")
_INTEGER = re.compile(r"-?\d{1,18}")


class Column(NamedTuple):
    """A column: ``names[codes[i]]`` is the text of row i; code -1 is a missing value.

    Attributes:
        codes: (rows,) index into ``names``, -1 if the cell is empty.
        names: the distinct texts, in the order in which they occur first.
    """

    codes: Longs
    names: list[str]

    def take(self, rows: Longs) -> Column:
        """Return the column of some rows; the names stay."""
        return Column(self.codes[rows], self.names)

    def texts(self) -> list[str]:
        """Return one text a row, "" if missing."""
        names = [*self.names, ""]  # code -1 is the last one
        return [names[code] for code in self.codes.tolist()]


class ColumnBuilder:
    """Collects the cells of a column, chunk by chunk."""

    def __init__(self) -> None:
        self._coder = _Coder()
        self._parts: list[Longs] = []
        self._rows = 0

    def add(self, cells: Sequence[str]) -> None:
        """Append cells; an empty text is a missing value."""
        self._append(self._coder.codes(cells))

    def add_column(self, column: Column) -> None:
        """Append a column that is already coded."""
        recode = np.append(self._coder.codes(column.names), -1)
        self._append(recode[column.codes])

    def pad(self, rows: int) -> None:
        """Append missing values until the column has ``rows`` rows."""
        if rows > self._rows:
            self._append(np.full(rows - self._rows, -1, np.int64))

    def build(self) -> Column:
        """Return the column of all cells so far."""
        codes = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int64)
        return Column(codes, self._coder.names())

    def _append(self, codes: Longs) -> None:
        self._parts.append(codes)
        self._rows += len(codes)


class _Coder(dict[str, int]):
    """Gives each text the next code when it occurs first; the empty text has code -1."""

    def __init__(self) -> None:
        super().__init__({"": -1})

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self) - 1
        return code

    def codes(self, cells: Sequence[str]) -> Longs:
        return np.fromiter(map(self.__getitem__, cells), np.int64, len(cells))

    def names(self) -> list[str]:
        return list(self)[1:]


def column_of(cells: Sequence[str]) -> Column:
    """Return the column of some texts."""
    coder = _Coder()
    return Column(coder.codes(cells), coder.names())


def concatenate(columns: Iterable[Column]) -> Column:
    """Return one column of the rows of all."""
    builder = ColumnBuilder()
    for column in columns:
        builder.add_column(column)
    return builder.build()


def merge_duplicates(codes: Longs, names: Sequence[str]) -> Column:
    """Return the column with one code for equal names, and code -1 for blank ones."""
    seen: dict[str, int] = {}
    renumber = [seen.setdefault(name, len(seen)) if name.strip() else -1 for name in names]
    recode = np.array([*renumber, -1], np.int64)  # the last entry is for code -1
    return Column(recode[codes], list(seen))


def are_float_ids(names: Sequence[str]) -> bool:
    """Return whether ids look like "17850.0": integers that were stored as floats.

    Others may be integers, as parts of a table may be stored in two ways. "nan" and "inf" may be
    among them: such a table writes them for missing ids.
    """
    return any(".0" in name for name in names) and are_whole(names)


def are_whole(names: Sequence[str]) -> bool:
    """Return whether all ids are integers, some of them perhaps stored as floats."""
    return all(
        _FLOAT_ID.fullmatch(name) or _INTEGER_ID.fullmatch(name)
        for name in names
        if name.strip() and name.lower() not in _NOT_A_NUMBER
    )


def plain_ids(names: Sequence[str]) -> list[str]:
    """Return ids without the forms in which programs store them.

    ="00123", which keeps a spreadsheet from reading a number, becomes 00123. If all are integers,
    some stored as floats, "17850.0" becomes "17850", and "nan" and "inf" become "".
    """
    plain = [name[2:-1] if name.startswith('="') else name for name in names]
    if not are_float_ids(plain):
        return plain
    return ["" if name.lower() in _NOT_A_NUMBER else name.partition(".")[0] for name in plain]


def read_ids(column: Column, missing: Sequence[str] = ()) -> Column:
    """Read ids as strings (``plain_ids``); blank ones and those in ``missing`` are missing."""
    names = ["" if name in missing else name for name in column.names]
    return merge_duplicates(column.codes, plain_ids(names))


def read_categories(column: Column) -> Column:
    """Read categories: as ids, without surrounding spaces."""
    labels = read_ids(column)
    return merge_duplicates(labels.codes, [name.strip() for name in labels.names])


def sort_ids(names: Sequence[str]) -> Longs:
    """Return the order of ids: as numbers if all are integers, else as strings."""
    if all(_INTEGER.fullmatch(name) for name in names):
        order = sorted(range(len(names)), key=lambda i: (int(names[i]), names[i]))
    else:
        order = sorted(range(len(names)), key=names.__getitem__)
    return np.array(order, np.int64)


def common(column: Column) -> Iterator[tuple[str, int]]:
    """Yield the names of a column with their number of rows, the most frequent first."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.names))
    for code in np.argsort(-counts, kind="stable"):
        yield column.names[code], int(counts[code])
