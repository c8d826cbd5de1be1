"""Pairs, users and histories from files, and tables to files, without pandas: CSV by itself, Parquet through pyarrow.

Column names are found and times are read as `prepare` does it (``data/names.py`` and ``data/times.py``).
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from numpy.typing import NDArray

from tlrec_edge.errors import DataError, MissingExtraError
from tlrec_edge.runtime.history import History
from tlrec_edge.tabular.column_names import (
    COUNT_EVENTS,
    EVENT_SYNONYMS,
    INTERACTION_NAMES,
    normalize_key,
)
from tlrec_edge.tabular.times import EARLIEST, LATEST, read_times

Columns = dict[str, list[str]]
_CHUNK = 65_536
_FIELD_LIMIT = 10_000_000


def read_columns(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), chunk: int = _CHUNK
) -> Iterator[Columns]:
    """Yield chunks of rows as text columns by role. Raises DataError that names file, row and column.

    Roles are those of ``INTERACTION_NAMES``; an optional column that is not there is absent from every chunk.
    """
    if not path.is_file():
        raise DataError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a .csv or .parquet file"
        )
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    yield from read(path, required, optional, chunk)


def read_histories(
    path: Path, progress: Callable[[str], None] = lambda line: None
) -> dict[str, History]:
    """Return every user's history from an interaction table: user, item, and where there are any, event and time.

    As in `prepare`: a row of counts stands for one event of each positive count; where the item is empty and a category
    is given, the item is ``category:NAME``; an event of an unknown name counts as "other"; a row without id or with a
    time that is none or out of range is left out, and ``progress`` gets how many and why. Raises DataError if no
    row is left.
    """
    rows: list[tuple[str, str, str, list[str]]] = []
    left_out = dict.fromkeys(
        ("no user id", "no item id", "unparsable time", "time out of range"), 0
    )
    counts = tuple(COUNT_EVENTS)
    has_times = has_events = False
    for chunk in read_columns(path, ["user"], ["item", "category", "event", "timestamp", *counts]):
        if "item" not in chunk and "category" not in chunk:
            raise DataError(f"{path} has no item column; name it 'item'")
        has_times, has_events = (
            "timestamp" in chunk,
            "event" in chunk or any(name in chunk for name in counts),
        )
        names, values = tuple(chunk), zip(*chunk.values(), strict=True)
        for cells in values:
            row = dict(zip(names, cells, strict=True))
            item = row.get("item", "")
            if not item.strip() and row.get("category", "").strip():
                item = f"category:{row['category'].strip()}"
            if not row["user"].strip() or not item.strip():
                left_out["no item id" if row["user"].strip() else "no user id"] += 1
            else:
                rows.append((row["user"], item, row.get("timestamp", ""), _events(row)))
    found = _by_user(rows, _read_times(path, rows) if has_times else {"": 0.0}, left_out)
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in left_out.items() if n)
    if reasons and not found:
        raise DataError(f"{path}: none of {sum(left_out.values()):,} rows is usable ({reasons})")
    if reasons:
        progress(f"{path}: rows left out: {reasons}")
    return {user: _history(events, has_events, has_times) for user, events in found.items()}


class TableWriter:
    """Context manager that writes rows to a CSV (also .gz) or Parquet file: whole, or not at all."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.path, self._columns = path, columns
        self._parquet = path.suffix == ".parquet"
        if not self._parquet and path.name.removesuffix(".gz")[-4:] != ".csv":
            raise DataError(f"cannot tell the format of {path}; name it .csv, .csv.gz or .parquet")
        if path.is_dir():
            raise DataError(f"{path} is a folder; give the name of a file to write")

    def __enter__(self) -> Self:
        folder = self.path.absolute().parent
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name[:60]}.", dir=folder)
        except OSError as error:
            raise DataError(
                f"cannot write to {folder} ({error.strerror}); choose another --out"
            ) from error
        os.close(handle)
        self._temporary = Path(name)
        try:
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
        self._sink.close()
        if kind is not None:
            self._temporary.unlink()
            return
        self._temporary.chmod(0o644)
        self._temporary.replace(self.path)

    def write(self, *columns: Sequence[Any] | NDArray[Any]) -> None:
        """Write rows, given as columns."""
        if self._parquet:
            import pyarrow as pa

            self._sink.write_table(pa.table(list(columns), schema=self._schema))
        else:
            csv.writer(self._sink, lineterminator="\n").writerows(zip(*columns, strict=True))

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


def _history(rows: list[tuple[str, str, float]], has_events: bool, has_times: bool) -> History:
    items, events, times = zip(*rows, strict=True)
    return History(items, events if has_events else None, times if has_times else None)


def _events(row: Mapping[str, str]) -> list[str]:
    counted = [(event, row[name]) for name, event in COUNT_EVENTS.items() if name in row]
    if counted:
        return [event for event, count in counted if _is_positive(count)]
    event = row.get("event", "")
    return [EVENT_SYNONYMS.get(normalize_key(event), "other") if event else "purchase"]


def _is_positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _read_times(path: Path, rows: Sequence[tuple[str, str, str, list[str]]]) -> Mapping[str, float]:
    try:
        return read_times(time for _, _, time, _ in rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _by_user(
    rows: Iterable[tuple[str, str, str, list[str]]],
    seconds: Mapping[str, float],
    left_out: dict[str, int],
) -> dict[str, list[tuple[str, str, float]]]:
    """Return (item, event, seconds) of each user; count the rows whose time is none or out of range."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    for user, item, text, events in rows:
        time = seconds[text]
        if EARLIEST <= time < LATEST:
            if events:
                found.setdefault(user, []).extend((item, event, time) for event in events)
        else:
            left_out["time out of range" if time == time else "unparsable time"] += 1
    return found


def _find_columns(
    names: Sequence[str], required: Sequence[str], optional: Sequence[str], path: Path
) -> dict[str, int]:
    by_normalised = {normalize_key(name): at for at, name in reversed(list(enumerate(names)))}
    found: dict[str, int] = {}
    for role in (*required, *optional):
        at = next(
            (by_normalised[name] for name in INTERACTION_NAMES[role] if name in by_normalised), None
        )
        if at is not None and at not in found.values():
            found[role] = at
        elif role in required:
            raise DataError(
                f"{path} has no {role} column; found {', '.join(names) or 'nothing'}; name it '{role}'"
            )
    return found


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
                        f"{path}, row {line} has {len(row)} cells, the header has {len(header)}; quote commas"
                    )
                rows.append(row)
                if len(rows) == chunk:
                    yield _columns(rows, roles)
                    rows = []
            yield _columns(rows, roles)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start} of a block); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"{path}, row {line + 1}: {error}; check the quotes") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); check the file") from error


def _reader(file: TextIO, path: Path) -> Iterator[list[str]]:
    """Return a reader with the separator that the header line uses most: comma, semicolon or tab."""
    header = file.readline()
    if not header.strip():
        raise DataError(f"{path} is empty; expected a header line and rows")
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
            f"{path} is not readable Parquet ({error}); write it again".replace("\n", " ")
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
    # A whole number in a float column is an id that once had missing neighbours.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading and writing Parquet", "build") from error
    return pyarrow, pyarrow.parquet
