"""Strings as two flat arrays, which can be memory-mapped and shared between processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import REMEDY
from tlrec_edge.core.unicode import not_unicode
from tlrec_edge.errors import BundleError, DataError
from tlrec_edge.types import Bytes, Longs

_CHUNK = 1 << 16


def build_strings(values: Iterable[str]) -> tuple[Bytes, Longs]:
    """Return the UTF-8 bytes of all strings joined together, and their n + 1 offsets.

    String i is ``data[offsets[i]:offsets[i + 1]]``. Raises DataError if one has a lone surrogate.
    """
    # In chunks: ten million `bytes` objects at once would take more memory than the table.
    parts: list[bytes] = []
    lengths = [np.zeros(1, np.int64)]
    encoded = map(str.encode, values)
    while chunk := _next_chunk(encoded):
        parts.append(b"".join(chunk))
        lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(np.concatenate(lengths))


def _next_chunk(encoded: Iterator[bytes]) -> list[bytes]:
    try:
        return list(islice(encoded, _CHUNK))
    except UnicodeEncodeError as error:
        raise DataError(not_unicode(error)) from error


class StringTable:
    """Strings by row, decoded from the mapped bytes when they are read.

    ``name`` is the file that error messages name.
    """

    def __init__(self, data: Bytes, offsets: Longs, name: str = "strings") -> None:
        self._data, self._offsets, self._name = data, offsets, name

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.take([row])[0]

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]:
        """Return the strings of many rows.

        Raises BundleError if a row is outside the table, or is not UTF-8.
        """
        at = np.asarray(rows, np.intp)
        lowest = min(at.tolist(), default=0)  # of few rows: faster than numpy's minimum
        if lowest < 0:  # numpy would count these from the end
            raise self._no_row(lowest)
        try:
            ends = self._offsets.take(at + 1).tolist()
        except IndexError as error:
            raise self._no_row(int(at.max())) from error
        spans = zip(self._offsets.take(at).tolist(), ends, strict=True)
        view = self._data.data
        try:
            return [str(view[start:end], "utf-8") for start, end in spans]
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{self._name} has a row that is not UTF-8: the file was altered; {REMEDY}"
            ) from error

    def _no_row(self, row: int) -> BundleError:
        return BundleError(
            f"{self._name} has {len(self)} rows, but another table refers to row {row}; {REMEDY}"
        )
