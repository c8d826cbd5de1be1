"""Read tables: CSV, TSV and the like, JSON lines, Parquet; compressed, piped or in parts.

All commands and both halves of the package read by this module. A cell of a text file is a text, as
it is written; columns of Parquet and of data frames become texts by ``arrow.py``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlrec_edge.core.counts import counted
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import Chunk, Facts, FileOptions, Table
from tlrec_edge.tabular.column import Column, ColumnBuilder
from tlrec_edge.tabular.csv_rows import read_csv
from tlrec_edge.tabular.encoding import find_encoding, naming
from tlrec_edge.tabular.files import OpenFile, list_parts, open_file
from tlrec_edge.tabular.json_rows import read_json
from tlrec_edge.tabular.roles import check_header

CHUNK = 65_536
"""Rows that are read at once."""


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
    path, facts = Path(path), Facts()
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
        check_header(facts.header, str(path))
        raise DataError(f"{path} has a header but no rows; expected at least one row of data")
    for builder in builders.values():
        builder.pad(rows)
    columns = {name: builder.build() for name, builder in builders.items()}
    notes = []
    if facts.short_rows:
        short = counted(facts.short_rows, "row has", "rows have")
        notes.append(f"{short} fewer cells than the header (read as empty)")
    if facts.repeated_headers:
        repeats = counted(facts.repeated_headers, "row repeats", "rows repeat")
        notes.append(f"{repeats} the header line (left out)")
    return Table(columns, rows, str(path), tuple(facts.formats), tuple(notes))


def read_chunks(
    path: Path, options: FileOptions | None = None, rows: int = CHUNK
) -> Iterator[Chunk]:
    """Yield a table in chunks of at most ``rows`` rows, which fit in memory one by one.

    Raises DataError and MissingExtraError as ``read_table`` does.
    """
    return _chunks(Path(path), options or FileOptions(), Facts(), rows)


def read_text(path: Path) -> str:
    """Return the text of a file or pipe, with any compression and encoding that tables may have.

    Raises DataError and MissingExtraError as ``read_table`` does.
    """
    with open_file(path) as file:
        encoding = find_encoding(file.stream(), str(path))
        with _text(file, encoding) as text:
            return text.read().removeprefix("\ufeff")


def _chunks(path: Path, options: FileOptions, facts: Facts, rows: int = CHUNK) -> Iterator[Chunk]:
    seen: dict[str, Path] = {}
    for part in list_parts(path):
        with open_file(part.path) as file:
            for chunk in _read_part(file, options, facts, rows):
                _check_same_table(part.path, list(chunk.columns), seen)
                constants = {name: [value] * chunk.rows for name, value in part.constants.items()}
                yield Chunk({**constants, **chunk.columns}, chunk.rows)


def _check_same_table(path: Path, names: list[str], seen: dict[str, Path]) -> None:
    """Note the columns of a part. Raises DataError if it shares none with those before it."""
    if seen and seen.keys().isdisjoint(names):
        name, other = next(iter(seen.items()))
        raise DataError(
            f"{path} and {other} have no column in common ({names[0]!r:.60} ..., {name!r:.60} "
            "...); the files of a folder are one table: give each the same header line, and "
            "remove files that are not part of it"
        )
    seen.update(dict.fromkeys(names, path))


def _read_part(file: OpenFile, options: FileOptions, facts: Facts, rows: int) -> Iterator[Chunk]:
    if file.magic.startswith(b"PAR1"):
        from tlrec_edge.tabular.arrow import read_parquet

        facts.formats["Parquet"] = None
        yield from (Chunk(columns, count) for columns, count in read_parquet(file, rows))
        return
    encoding = find_encoding(file.stream(), str(file.path), options.encoding)
    with _text(file, encoding) as text:
        first = _first_line(text)
    if not first.strip():
        raise DataError(f"{file.path} is empty; expected a header line and rows")
    is_json = first.lstrip()[0] in "{[" and not options.columns
    facts.formats[f"{'JSON' if is_json else 'text'}, {encoding}"] = None
    with _text(file, encoding) as text:
        if is_json:
            yield from read_json(text, file.path, rows)
        else:
            yield from read_csv(text, first, file.path, options, facts, rows)


@contextmanager
def _text(file: OpenFile, encoding: str) -> Iterator[io.TextIOWrapper]:
    """Decode a file from its start; the file itself stays open. Raises DataError if that fails."""
    text = io.TextIOWrapper(file.stream(), encoding, newline="")
    try:
        yield text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.path} is not {encoding} text ({error.reason} at byte {error.start} of a block);"
            f" save it as UTF-8, or name another encoding: {naming('')}"
        ) from error
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
