"""Read tables: CSV, TSV and the like, JSON lines, Parquet; compressed, piped or in parts.

All commands and both halves of the package read by this module. A cell of a text file is a text, as
it is written; columns of Parquet and of data frames become texts by ``arrow.py``.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import Column, ColumnBuilder
from tlrec_edge.tabular.encoding import find_encoding
from tlrec_edge.tabular.files import OpenFile, list_parts, open_file

CHUNK = 65_536
"""Rows that are read at once."""
UNNAMED = "Unnamed: "
"""Start of the name of a column without one: usually the row number that a data frame wrote."""
_FIELD_LIMIT = 10_000_000
_SEPARATORS = (",", "\t", ";", "|", "\x01")
_DOUBLE_COLON = "::"
_UNIT = "\x1f"
"""What stands for a double colon, because csv reads separators of one character only."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class FileOptions:
    """What a text file cannot say by itself.

    Attributes:
        encoding: name of the encoding; "" finds it.
        separator: character between cells; "" finds it.
        columns: names of the columns of files without a header line; empty if they have one.
    """

    encoding: str = ""
    separator: str = ""
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.encoding:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise DataError(
                    f"unknown encoding {self.encoding!r}; use utf-8, gb18030, cp949, cp1252 ..."
                ) from error
        if len(self.separator) > 1 and self.separator != _DOUBLE_COLON:
            raise DataError(f"separator is {self.separator!r}, expected one character, or '::'")
        repeated = [name for name in self.columns if self.columns.count(name) > 1]
        if repeated:
            raise DataError(f"column {repeated[0]!r} is named twice; name each column once")


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


class Chunk(NamedTuple):
    """Some rows of a table: texts by column, or coded columns. Columns may be absent."""

    columns: Mapping[str, Sequence[str] | Column]
    rows: int


@dataclass
class _Facts:
    """What is learned while a table is read."""

    formats: dict[str, None] = field(default_factory=dict)
    short_rows: int = 0


def read_table(path: Path, options: FileOptions | None = None) -> Table:
    """Read a whole table.

    Args:
        path: a file, a pipe, or a folder of part files. Text files may be compressed by gzip,
            bzip2, xz or Zstandard.
        options: encoding, separator and columns of text files, if they must be named.

    Returns:
        The table.

    Raises:
        DataError: if it cannot be read; the message names the file and, if possible, the line.
        MissingExtraError: if an optional package is needed.
    """
    path, facts = Path(path), _Facts()
    builders: dict[str, ColumnBuilder] = {}
    rows = 0
    for chunk in _chunks(path, options or FileOptions(), facts):
        for name, cells in chunk.columns.items():
            builder = builders.setdefault(name, ColumnBuilder())
            builder.pad(rows)
            if isinstance(cells, Column):
                builder.add_column(cells)
            else:
                builder.add(cells)
        rows += chunk.rows
    if not rows:
        raise DataError(f"{path} has a header but no rows; expected at least one row of data")
    for builder in builders.values():
        builder.pad(rows)
    columns = {name: builder.build() for name, builder in builders.items()}
    notes = []
    if facts.short_rows:
        notes.append(f"{facts.short_rows:,} rows have fewer cells than the header (read as empty)")
    return Table(columns, rows, str(path), tuple(facts.formats), tuple(notes))


def read_chunks(
    path: Path, options: FileOptions | None = None, rows: int = CHUNK
) -> Iterator[Chunk]:
    """Yield a table in chunks of at most ``rows`` rows, which fit in memory one by one.

    Raises DataError and MissingExtraError as ``read_table`` does.
    """
    return _chunks(Path(path), options or FileOptions(), _Facts(), rows)


def _chunks(path: Path, options: FileOptions, facts: _Facts, rows: int = CHUNK) -> Iterator[Chunk]:
    for part in list_parts(path):
        with open_file(part.path) as file:
            for chunk in _read_part(file, options, facts, rows):
                constants = {name: [value] * chunk.rows for name, value in part.constants.items()}
                yield Chunk({**constants, **chunk.columns}, chunk.rows)


def _read_part(file: OpenFile, options: FileOptions, facts: _Facts, rows: int) -> Iterator[Chunk]:
    if file.magic.startswith(b"PAR1"):
        from tlrec_edge.tabular.arrow import read_parquet

        facts.formats["Parquet"] = None
        yield from (Chunk(columns, count) for columns, count in read_parquet(file, rows))
        return
    encoding = options.encoding or find_encoding(file.stream(), str(file.path))
    try:
        with _text(file, encoding) as text:
            first = _first_line(text)
        if not first.strip():
            raise DataError(f"{file.path} is empty; expected a header line and rows")
        is_json = first.lstrip()[0] in "{[" and not options.columns
        facts.formats[f"{'JSON' if is_json else 'text'}, {encoding}"] = None
        with _text(file, encoding) as text:
            if is_json:
                yield from _read_json(text, file.path, rows)
            else:
                yield from _read_csv(text, first, file.path, options, facts, rows)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.path} is not {encoding} text ({error.reason} at byte {error.start} of a block);"
            " name another --encoding, or save the file as UTF-8"
        ) from error


@contextmanager
def _text(file: OpenFile, encoding: str) -> Iterator[io.TextIOWrapper]:
    """Decode a file from its start; the file itself stays open."""
    text = io.TextIOWrapper(file.stream(), encoding, newline="")
    try:
        yield text
    finally:
        text.detach()


def _first_line(text: io.TextIOWrapper) -> str:
    """Return the first line that is not blank, without the mark of its encoding."""
    line = ""
    while not line.strip("\ufeff \t\r\n"):
        line = text.readline()
        if not line:
            break
    return line.lstrip("\ufeff")


def _read_json(text: io.TextIOWrapper, path: Path, rows: int) -> Iterator[Chunk]:
    records: list[dict[str, Any]] = []
    for line, record in _json_records(text, path):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}: line {line} is not an object; expected JSON lines such as "
                '{"user": "u1", "item": "i1"}'
            )
        records.append(record)
        if len(records) == rows:
            yield _json_chunk(records)
            records = []
    if records:
        yield _json_chunk(records)


def _json_records(text: io.TextIOWrapper, path: Path) -> Iterator[tuple[int, Any]]:
    line = 0
    try:
        start = text.read(1)
        while start and not start.strip("\ufeff \t\r\n"):
            start = text.read(1)
        if start == "[":
            yield from ((1, record) for record in json.loads(start + text.read()))
            return
        for line, content in enumerate(_prepend(start, text), 1):
            if content.strip():
                yield line, json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}: line {max(line, 1)} is not valid JSON ({error}); expected one object a line"
        ) from error


def _prepend(start: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield start + line
        start = ""


def _json_chunk(records: Sequence[Mapping[str, Any]]) -> Chunk:
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [_json_text(record.get(name)) for record in records] for name in names}
    return Chunk(columns, len(records))


def _json_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _read_csv(
    text: io.TextIOWrapper,
    first: str,
    path: Path,
    options: FileOptions,
    facts: _Facts,
    rows: int,
) -> Iterator[Chunk]:
    csv.field_size_limit(_FIELD_LIMIT)
    lines = _Lines(text)
    separator = options.separator
    if mark := _SEPARATOR_LINE.fullmatch(first):
        separator = separator or mark[1]
        lines.skip_separator_line()
    separator = separator or find_separator(first)
    if separator == _DOUBLE_COLON:
        lines.replaced, separator = _DOUBLE_COLON, _UNIT
    reader = csv.reader(lines, delimiter=separator)
    try:
        names = list(options.columns) or _header(_first_row(reader), path)
        width, cells = len(names), []
        for row in reader:
            if lines.ended:
                raise DataError(
                    f"{path}: a quote is open at the end of the file (EOF inside string); "
                    "check the quotes"
                )
            if len(row) != width or width == 1:
                if _is_blank(row):
                    continue
                row = _fit(row, width, path, reader.line_num, facts, bool(options.columns))
            cells.append(row)
            if len(cells) == rows:
                yield _csv_chunk(names, cells)
                cells = []
        if cells:
            yield _csv_chunk(names, cells)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; check the quotes") from error


class _Lines:
    """The lines of a text; ``ended`` says that the reader asked for more than there are."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.ended = False
        self.replaced = ""

    def __iter__(self) -> Iterator[str]:
        lines = iter(self._text)
        if self.replaced:
            lines = (line.replace(self.replaced, _UNIT) for line in lines)
        first = next(lines, "").removeprefix("\ufeff")
        return chain([first], lines, self._end())

    def _end(self) -> Iterator[str]:
        """Yield nothing; note that the reader came this far."""
        self.ended = True
        yield from ()

    def skip_separator_line(self) -> None:
        """Skip the line in which Excel names the separator."""
        while not self._text.readline().strip("\ufeff \t\r\n"):
            pass


def _first_row(reader: Iterator[list[str]]) -> list[str]:
    return next(row for row in reader if not _is_blank(row))


def _is_blank(row: Sequence[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip())


def _header(cells: Sequence[str], path: Path) -> list[str]:
    names = [name.strip() or f"{UNNAMED}{at}" for at, name in enumerate(cells)]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{path}: column {name!r} occurs {names.count(name)} times; "
                "rename or remove the copies"
            )
    return names


def _fit(
    row: list[str], width: int, path: Path, line: int, facts: _Facts, is_named: bool
) -> list[str]:
    if len(row) == width:
        return row
    if len(row) < width:
        facts.short_rows += 1
        return [*row, *[""] * (width - len(row))]
    expected = f"--columns names {width}" if is_named else f"the header {width}"
    raise DataError(
        f"{path}: line {line} has {len(row)} cells, {expected}; check the separators and quotes "
        "there"
    )


def _csv_chunk(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Chunk:
    return Chunk(dict(zip(names, zip(*rows, strict=True), strict=True)), len(rows))


def find_separator(header: str) -> str:
    """Return the most frequent separator of a header line, outside quotes."""
    plain = "".join(header.split('"')[::2])
    if plain.count(_DOUBLE_COLON) > max(map(plain.count, _SEPARATORS)):
        return _DOUBLE_COLON
    return max(_SEPARATORS, key=plain.count)


def looks_like_data(names: Collection[str]) -> bool:
    """Return whether the cells of a header line are values: more than a third are numbers."""
    n_numbers = sum(1 for name in names if _NUMBER.fullmatch(name))
    return n_numbers > len(names) / 3
