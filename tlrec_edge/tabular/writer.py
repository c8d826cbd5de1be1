"""Write tables: CSV, compressed or not, and Parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from tlrec_edge.core.files import create_next_to
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.arrow import pyarrow


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
        try:
            self._temporary = create_next_to(self.path)
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
            pa, parquet = pyarrow()
            kinds = {str: pa.string(), float: pa.float32(), int: pa.int32()}
            self._schema = pa.schema([(name, kinds[kind]) for name, kind in self._columns.items()])
            self._sink = parquet.ParquetWriter(self._temporary, self._schema)
            return
        opener = gzip.open if self.path.suffix == ".gz" else open
        self._sink = opener(
            self._temporary, "wt", encoding="utf-8", errors="backslashreplace", newline=""
        )
        csv.writer(self._sink, lineterminator="\n").writerow(self._columns)
