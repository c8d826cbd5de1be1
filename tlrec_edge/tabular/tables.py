"""Read and write CSV and Parquet tables without pandas; Parquet needs pyarrow."""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from numpy.typing import NDArray

from tlrec_edge.errors import DataError, MissingExtraError
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, normalize_key

Columns = dict[str, list[str]]
"""Text columns by role, such as "user" or "timestamp"."""
_CHUNK = 65_536
_FIELD_LIMIT = 10_000_000


def read_columns(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), chunk: int = _CHUNK
) -> Iterator[Columns]:
    """Yield the rows of a .csv, .csv.gz or .parquet file in chunks of text columns.

    ``required`` and ``optional`` are roles of ``INTERACTION_NAMES``, which lists the column names
    that each role is found under. An optional column that the file doesn't have is absent from
    every chunk.

    Raises DataError if the file cannot be read or lacks a required column; the message names the
    file, and the row or column. Raises MissingExtraError if Parquet needs pyarrow.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {problem}; pass a .csv or .parquet file")
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    yield from read(path, required, optional, chunk)


def check_ending(path: Path) -> None:
    """Raise DataError unless a table can be written under this name."""
    if path.suffix != ".parquet" and path.name.removesuffix(".gz")[-4:] != ".csv":
        raise DataError(f"{path} has an unknown ending; name it .csv, .csv.gz or .parquet")


class TableWriter:
    """Context manager that writes rows to a .csv, .csv.gz or .parquet file.

    The file only appears at ``path`` when the block ends without an exception.

    Raises DataError if the file cannot be written, or its name has another ending.
    """

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.path, self._columns = path, columns
        self._parquet = path.suffix == ".parquet"
        check_ending(path)
        if path.is_dir():
            raise DataError(f"{path} is a folder; pass the name of a file to write")

    def __enter__(self) -> Self:
        folder = self.path.absolute().parent
        self._temporary = folder / f".{self.path.name[:60]}.{secrets.token_hex(4)}.new"
        try:
            # Not by `tempfile`, whose files only their owner can read: the umask decides.
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise DataError(
                f"cannot write to {folder} ({error.strerror}); choose another --out"
            ) from error
        try:
            with self._writing():
                self._open()
        except BaseException:
            self._temporary.unlink()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._writing():
                self._sink.close()
                if kind is None:
                    self._temporary.replace(self.path)
        except DataError:
            if kind is None:
                raise
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, *columns: Sequence[Any] | NDArray[Any]) -> None:
        """Write rows, one sequence per column."""
        with self._writing():
            if self._parquet:
                import pyarrow as pa

                self._sink.write_table(pa.table(list(columns), schema=self._schema))
            else:
                csv.writer(self._sink, lineterminator="\n").writerows(zip(*columns, strict=True))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write {self.path}: {error.strerror or error}; "
                "free some space or choose another --out"
            ) from error

    def _open(self) -> None:
        self._sink: Any
        if self._parquet:
            pa, parquet = _pyarrow()
            kinds = {str: pa.string(), float: pa.float32(), int: pa.int32()}
            self._schema = pa.schema([(name, kinds[kind]) for name, kind in self._columns.items()])
            self._sink = parquet.ParquetWriter(self._temporary, self._schema)
            return
        opener = gzip.open if self.path.suffix == ".gz" else open
        self._sink = opener(
            self._temporary, "wt", encoding="utf-8", errors="surrogatepass", newline=""
        )
        csv.writer(self._sink, lineterminator="\n").writerow(self._columns)


def _find_columns(
    names: Sequence[str], required: Sequence[str], optional: Sequence[str], path: Path
) -> dict[str, int]:
    """Return the index of each role's column; the first one if several have the same name."""
    index_of = {normalize_key(name): at for at, name in reversed(list(enumerate(names)))}
    columns: dict[str, int] = {}
    for role in (*required, *optional):
        at = next((index_of[name] for name in INTERACTION_NAMES[role] if name in index_of), None)
        if at is not None and at not in columns.values():
            columns[role] = at
        elif role in required:
            raise DataError(
                f"{path} has no {role} column; found {', '.join(names) or 'nothing'}; "
                f"rename the column to {role!r}"
            )
    return columns


def _read_csv(
    path: Path, required: Sequence[str], optional: Sequence[str], chunk: int
) -> Iterator[Columns]:
    csv.field_size_limit(_FIELD_LIMIT)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    line = 1
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = _reader(file, path)
            header = next(reader, [])
            roles = _find_columns(header, required, optional, path)
            rows: list[list[str]] = []
            for row in reader:
                line += 1
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, row {line} has {len(row)} cells, but the header has "
                        f"{len(header)}; quote cells that contain a comma"
                    )
                rows.append(row)
                if len(rows) == chunk:
                    yield _columns(rows, roles)
                    rows = []
            yield _columns(rows, roles)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}, row {line + 1}: {error}; check the quotes") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); check the file") from error


def _reader(file: TextIO, path: Path) -> Iterator[list[str]]:
    """Return a CSV reader for the header's most frequent separator: comma, semicolon or tab."""
    header = file.readline()
    if not header.strip():
        raise DataError(f"{path} is empty; it needs a header line and rows")
    file.seek(0)
    return csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True)


def _columns(rows: list[list[str]], roles: Mapping[str, int]) -> Columns:
    return {role: [row[at] for row in rows] for role, at in roles.items()}


def _read_parquet(
    path: Path, required: Sequence[str], optional: Sequence[str], chunk: int
) -> Iterator[Columns]:
    pa, parquet = _pyarrow()
    try:
        with contextlib.closing(parquet.ParquetFile(path)) as file:
            names = file.schema_arrow.names
            roles = _find_columns(names, required, optional, path)
            for batch in file.iter_batches(chunk, columns=[names[at] for at in roles.values()]):
                yield {
                    role: _texts(batch.column(names[at]).to_pylist()) for role, at in roles.items()
                }
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({error}); write it again".replace("\n", " ")
        ) from error


def _texts(values: Iterable[Any]) -> list[str]:
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    # An integer id is stored as a float if its column has missing values.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading and writing Parquet", "build") from error
    return pyarrow, pyarrow.parquet
