"""Read text with separators as rows of texts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import DOUBLE_COLON, UNNAMED, Chunk, Facts, FileOptions
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, normalize_key
from tlrec_edge.tabular.roles import check_header

_FIELD_LIMIT = 10_000_000
_SEPARATORS = (",", "\t", ";", "|", "\x01")
_UNIT = "\x1f"
"""Replaces a double colon, because csv only reads separators of one character."""
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


def read_csv(
    text: io.TextIOWrapper,
    first: str,
    path: Path,
    options: FileOptions,
    facts: Facts,
    rows: int,
) -> Iterator[Chunk]:
    """Yield the rows of a text with separators in chunks of ``rows``.

    Args:
        text: the file, at its start.
        first: its first line that is not blank.
        path: its path, for messages.
        options: separator and names of columns.
        facts: counts short rows.
        rows: rows of a chunk.

    Raises DataError, which names the line.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    lines = _Lines(text)
    separator = options.separator if options.separator in first else ""
    if mark := _SEPARATOR_LINE.fullmatch(first):
        separator = separator or mark[1]
        lines.skip_separator_line()
    separator = separator or find_separator(first)
    if separator == DOUBLE_COLON:
        lines.replaced, separator = DOUBLE_COLON, _UNIT
    reader = csv.reader(lines, delimiter=separator)
    end = 0  # the last line of the last row
    try:
        first_row = _first_row(reader)
        has_header = not options.columns or _names_user_and_item(first_row)
        names = _header(first_row, path) if has_header else list(options.columns)
        facts.header = names
        width, cells = len(names), []
        end = reader.line_num if has_header else 0
        for row in reader if has_header else chain([first_row], reader):
            if lines.ended:
                raise _open_quote(path, row[-1], reader.line_num)
            start, end = end + 1, reader.line_num
            if len(row) != width or width == 1:
                if _is_blank(row):
                    continue
                row = _fit(row, width, path, (start, end), facts, has_header and names[0])
            if row[-1] == first_row[-1] and has_header and _repeats(first_row, row):
                facts.repeated_headers += 1
                continue
            cells.append(row)
            if len(cells) == rows:
                yield _csv_chunk(names, cells)
                cells = []
        if cells:
            yield _csv_chunk(names, cells)
    except csv.Error as error:
        place = _place(end + 1, reader.line_num)
        raise DataError(f"{path}: {place}: {error}; check the quotes") from error


def _open_quote(path: Path, cell: str, last_line: int) -> DataError:
    """Return the error on a cell whose quote is open at the end of the file."""
    line = last_line - len(_LINE_BREAK.findall(cell)) + cell.endswith(("\r", "\n"))
    return DataError(
        f"{path}: line {line}: a quote opens here and is open at the end of the file (EOF inside "
        f"string); close or remove the quote before {cell.strip()!r:.40}"
    )


def _place(start: int, end: int) -> str:
    """Return the place of a row, which has several lines if a quote holds line breaks."""
    return f"line {end}" if start >= end else f"the row of lines {start} to {end}"


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


def _names_user_and_item(row: Sequence[str]) -> bool:
    """Return whether a row is a header line, although the columns were named."""
    keys = set(map(normalize_key, row))
    return all(not keys.isdisjoint(INTERACTION_NAMES[role]) for role in ("user", "item"))


def _header(cells: Sequence[str], path: Path) -> list[str]:
    names = [name.strip() or f"{UNNAMED}{at}" for at, name in enumerate(cells)]
    for name in names:
        if names.count(name) > 1:
            check_header(cells, str(path))
            raise DataError(
                f"{path}: column {name!r} occurs {names.count(name)} times; "
                "rename or remove the copies"
            )
    return names


def _repeats(header: Sequence[str], row: Sequence[str]) -> bool:
    """Return whether a row is the header line again, as in files that were concatenated."""
    return row[1:] == header[1:] and row[0].lstrip("\ufeff").strip('"') == header[0]


def _fit(
    row: list[str],
    width: int,
    path: Path,
    lines: tuple[int, int],
    facts: Facts,
    header: str | bool,
) -> list[str]:
    if len(row) == width:
        return row
    if len(row) < width:
        facts.short_rows += 1
        return [*row, *[""] * (width - len(row))]
    expected = f"the header {width}" if header else f"the named columns are {width}"
    if header and width == 1:
        expected += f" ({header:.60}): remove lines above the header line"
    raise DataError(
        f"{path}: {_place(*lines)} has {len(row)} cells, {expected}; check the separators and "
        "quotes there"
    )


def _csv_chunk(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Chunk:
    return Chunk(dict(zip(names, zip(*rows, strict=True), strict=True)), len(rows))


def find_separator(header: str) -> str:
    """Return the most frequent separator of a header line, outside quotes."""
    plain = "".join(header.split('"')[::2])
    if plain.count(DOUBLE_COLON) > max(map(plain.count, _SEPARATORS)):
        return DOUBLE_COLON
    return max(_SEPARATORS, key=plain.count)
