"""Columns of Parquet files and of data frames as texts; needs pyarrow."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

from tlrec_edge.core.unicode import not_unicode
from tlrec_edge.errors import DataError, MissingExtraError
from tlrec_edge.tabular.chunk import FRAME, Table
from tlrec_edge.tabular.column import Column, column_of, concatenate
from tlrec_edge.tabular.files import OpenFile

_INDEX = "__index_level_"
"""Start of the column that pandas writes for an index without a name."""


def pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet.

    Raises MissingExtraError if they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading and writing Parquet", "build") from error
    return pyarrow, pyarrow.parquet


def parquet_file(stream: BinaryIO) -> Any:
    """Open a Parquet file that is to be read with ``use_threads=False``.

    Threads of Arrow call the Python file even when the interpreter exits, which aborts the process.
    They would save about 0.1 s of CPU time in 5 million rows.
    """
    return pyarrow()[1].ParquetFile(stream, pre_buffer=False)


def read_parquet(file: OpenFile, rows: int) -> Iterator[tuple[dict[str, Column], int]]:
    """Yield the columns of a Parquet file in batches, with their number of rows.

    Raises DataError if the file is damaged.
    """
    pa, _ = pyarrow()
    try:
        with contextlib.closing(parquet_file(file.stream())) as source:
            for batch in source.iter_batches(rows, use_threads=False):
                yield _columns(batch, str(file.path)), len(batch)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{file.path} is a damaged Parquet file ({reason}); write it again"
        ) from error


def table_of(frame: Any, name: str = "table") -> Table:
    """Return a data frame as a table.

    Args:
        frame: a pandas, polars or pyarrow table, or any other object with the Arrow PyCapsule
            interface; or a mapping of column names to sequences.
        name: the origin of the data, for messages.

    Raises:
        DataError: if it is not a table.
        MissingExtraError: if pyarrow is not installed.
    """
    if isinstance(frame, Table):
        return frame
    try:
        table = _arrow_table(frame, name)
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: {not_unicode(error)}; correct it") from error
    return Table(_columns(table, name), table.num_rows, name, (FRAME,))


def _arrow_table(frame: Any, name: str) -> Any:
    pa, _ = pyarrow()
    try:
        return pa.table(dict(frame) if isinstance(frame, Mapping) else frame)
    except UnicodeEncodeError:
        raise  # no conversion helps
    except (pa.ArrowException, TypeError, ValueError) as error:
        return _table_of_objects(frame, name, error)


def _table_of_objects(frame: Any, name: str, error: Exception) -> Any:
    """Convert a frame whose columns hold Python objects of several types, each as its text."""
    pa, _ = pyarrow()
    names = list(frame) if isinstance(frame, Mapping) else list(getattr(frame, "columns", []))
    if not names:
        raise DataError(
            f"{name}: expected a pandas, polars or pyarrow table, got {type(frame).__name__}"
        ) from error
    _check_unique(names, name)
    columns = {}
    for column in names:
        values = list(frame[column])
        try:
            columns[str(column)] = pa.array(values, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError):
            columns[str(column)] = pa.array([_text(value) for value in values])
    try:
        return pa.table(columns)
    except pa.ArrowException as different:
        raise DataError(f"{name}: {different}; expected columns of one length") from different


def _columns(table: Any, table_name: str) -> dict[str, Column]:
    names = [name for name in table.schema.names if not name.startswith(_INDEX)]
    _check_unique(names, table_name)
    return {name: _column(table.column(name)) for name in names}


def _check_unique(names: Sequence[str], table_name: str) -> None:
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise DataError(
            f"{table_name}: two columns have the same name, {repeated!r:.60}; rename one of them"
        )


def _column(array: Any) -> Column:
    pa, _ = pyarrow()
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    is_extension = isinstance(kind, pa.BaseExtensionType)
    if pa.types.is_nested(kind) or pa.types.is_null(kind) or is_extension:
        return column_of([_text(value) for value in array.to_pylist()])
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        array = array.cast(pa.timestamp("us", kind.tz), safe=False)
    encoded = array.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype("int64")
    names = [_text(value) for value in encoded.dictionary.to_pylist()]
    return concatenate([Column(codes, names)])  # with one code for equal texts


def _text(value: Any) -> str:
    if _is_missing(value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")  # different bytes stay different
    if isinstance(value, datetime):
        return str(value if value.tzinfo is None else value.astimezone(UTC))
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}"
    return str(value)


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, NaT or pandas' NA, which is not equal to itself."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # a comparison with NA is neither true nor false
        return True
    except ValueError:  # of an array, for each of its elements
        return False
