"""Read CSV, TSV (also .gz) and Parquet files; cells of text files stay as they are written."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import warnings
import zlib
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tlrec_edge.errors import DataError

_log = logging.getLogger(__name__)
_SEPARATORS = (",", "\t", ";", "|")
SAMPLE_SIZE = 1_000_000
"""Bytes or characters from which the encoding is guessed."""
MIN_COMMON_SHARE = 0.8
"""Share of the Chinese characters that must be in GB2312."""
MAX_SINGLE_SHARE = 0.1
"""Share of the bytes above 127 that may be between bytes of ASCII."""


def read_table(path: Path) -> pd.DataFrame:
    """Read one table.

    Cells of a text file are strings, "" if empty; Parquet columns keep their types. Raises
    DataError if the file cannot be read; the message names the file and, if possible, the line.
    """
    path = Path(path)
    raw = _read_bytes(path)
    frame = _read_parquet(path) if raw[:4] == b"PAR1" else _read_text(raw, path)
    if frame.empty:
        raise DataError(f"{path} has a header but no rows; expected at least one row of data")
    return frame


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; check the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; pass a CSV or Parquet file") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is a damaged gzip file ({error}); download or compress it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; check the file's permissions"
        ) from error
    if not raw.strip():
        raise DataError(f"{path} is empty; expected a header line and rows")
    if raw[:2] == b"PK" or raw[:4] == b"\xd0\xcf\x11\xe0":
        raise DataError(
            f"{path} is an Excel or zip file, which is not supported; save it as CSV (UTF-8)"
        )
    return raw


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path, partitioning=None).replace_schema_metadata(None)
        # Without pandas' own metadata, so that a column that was an index stays a column. Integers
        # with missing values must not become floats, which would change long ids.
        frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path} is a damaged Parquet file ({_first_line(error)}); write it again"
        ) from error
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    frame = frame.assign(**{name: frame[name].map(str) for name in nested})
    return frame.drop(columns=[name for name in frame.columns if name.startswith("__index_level_")])


def _read_text(raw: bytes, path: Path) -> pd.DataFrame:
    encoding = _find_encoding(raw, path)
    header = _header_line(raw, encoding)
    separator = _find_separator(header)
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator))]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(
            f"{path}: column {repeated[0]!r} occurs {names.count(repeated[0])} times; "
            "rename or remove the copies"
        )
    try:
        with warnings.catch_warnings():
            # pandas only warns about a row longer than the header, and truncates it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.BytesIO(raw),
                sep=separator,
                encoding=encoding,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                low_memory=False,
            )
    except (
        pd.errors.ParserError,
        pd.errors.ParserWarning,
        pd.errors.EmptyDataError,
        ValueError,
    ) as error:
        problem = _long_line(raw.decode(encoding), separator, len(names)) or _first_line(error)
        raise DataError(f"{path}: {problem}; check the separators and quotes there") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    return frame


def _find_encoding(raw: bytes, path: Path) -> str:
    """Return "utf-8-sig", or "gb18030" if the text is not UTF-8 but probably Chinese."""
    try:
        raw.decode("utf-8-sig")
        return "utf-8-sig"
    except UnicodeDecodeError as error:
        line, byte = raw.count(b"\n", 0, error.start) + 1, error.start
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    # Latin-1 text often decodes as GB18030 too, but to rare characters; nearly all characters of a
    # real Chinese file are in the older GB2312.
    wide = [char for char in text[:SAMPLE_SIZE] if ord(char) > 127]
    n_common = sum(1 for char in wide if char.encode("gb2312", "ignore"))
    if wide and n_common >= MIN_COMMON_SHARE * len(wide) and _high_bytes_are_paired(raw):
        return "gb18030"
    problem = "is neither UTF-8 nor GB18030 text"
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        problem = "is UTF-16"
    raise DataError(f"{path}: line {line}, byte {byte} {problem}; save the file as UTF-8")


def _high_bytes_are_paired(raw: bytes) -> bool:
    """Return whether nearly all bytes above 127 are next to another one, as in GB2312.

    In Latin-1 text an accented letter is usually between plain ones.
    """
    sample = raw[:SAMPLE_SIZE]
    high = [byte > 127 for byte in sample]
    before, after = [False, *high[:-1]], [*high[1:], False]
    n_single = sum(
        is_high and not neighbour and not other
        for is_high, neighbour, other in zip(high, before, after, strict=True)
    )
    return n_single < MAX_SINGLE_SHARE * max(sum(high), 1)


def _long_line(text: str, separator: str, width: int) -> str:
    """Describe the first row with more cells than the header; return "" if every row fits."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            if len(row) > width:
                return f"line {reader.line_num} has {len(row)} cells, the header {width}"
    except csv.Error as error:  # a cell beyond the limit of csv; the message of pandas must do
        _log.debug("cannot count cells: %s", error)
    return ""


def _header_line(raw: bytes, encoding: str) -> str:
    text = raw[:SAMPLE_SIZE].decode(encoding, "ignore").lstrip("\r\n")
    return text.splitlines()[0] if text else ""


def _find_separator(header: str) -> str:
    quoted = False
    counts = dict.fromkeys(_SEPARATORS, 0)
    for char in header:
        quoted ^= char == '"'
        if not quoted and char in counts:
            counts[char] += 1
    return max(_SEPARATORS, key=lambda separator: counts[separator])


def _first_line(error: BaseException) -> str:
    return (
        str(error).strip().splitlines()[0].removeprefix("Error tokenizing data. C error: ")
        if str(error)
        else "?"
    )
