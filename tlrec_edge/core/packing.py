"""Rows of 8, 6 or 4 bits as bytes, and float32 blocks of them whose dot products stay exact.

4 bits: byte j holds column j in its low half and column h + j in its high half; h is half the width.
6 bits: of q = width / 4, byte i * q + j (i < 3) holds column i * q + j in its low six bits and bits 2i, 2i + 1 of
column 3q + j in its high two. Both are offset binary: what is stored is the entry plus 8 or 32. Widths that do not
divide are padded with entries of 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.rowwise import MAX_ENTRY, quantize_rows
from tlrec_edge.types import Bytes, Floats, Scales

BITS = {"int8": 8, "int6": 6, "int4": 4}
ROW_KINDS = ("float32", *BITS)
"""What the rows of a table may be stored as."""
WRITTEN = ("float32", "int8", "int4")
"""What new tables are stored as; int6 is only read, from models and bundles of 0.1."""
_ZERO = {4: 8, 6: 32, 8: 0}
_LOW = {4: 15, 6: 63}
_PARTS = {4: 2, 6: 4}


def pack(rows: NDArray[np.int8], bits: int) -> Bytes:
    """Return rows (n, width) of 4 or 6 bits as bytes (n, ``packed_width``)."""
    n, width = rows.shape
    part = -(-width // _PARTS[bits])
    entries = np.full((n, part * _PARTS[bits]), _ZERO[bits], np.uint8)
    entries[:, :width] = rows + np.int8(_ZERO[bits])
    if bits == 4:
        halves: Bytes = entries[:, :part] | entries[:, part:] << 4
        return halves
    packed, last = entries[:, : 3 * part], entries[:, 3 * part :]
    for i in range(3):
        packed[:, i * part : (i + 1) * part] |= (last >> (2 * i) & 3) << 6
    return np.ascontiguousarray(packed)


def packed_width(width: int, bits: int) -> int:
    """Return the bytes of a row."""
    return width if bits == 8 else -(-width // _PARTS[bits]) * bits * _PARTS[bits] // 8


def unpack(packed: Bytes, width: int, bits: int) -> Floats:
    """Return the entries (n, width) that ``pack`` was given, as float32."""
    first, high = packed & _LOW[bits], packed >> bits
    if bits == 6:
        part = packed.shape[1] // 3
        high = high[:, :part] | high[:, part : 2 * part] << 2 | high[:, 2 * part :] << 4
    entries: Floats = np.concatenate([first, high], 1)[:, :width].astype(np.float32)
    entries -= _ZERO[bits]
    return entries


class Query(NamedTuple):
    """A user's vector as widened rows are multiplied with: its columns, their factors, and what the sum is too high."""

    columns: slice
    vector: Floats
    offset: np.float32

    def dot(self, block: Floats) -> Floats:
        """Return the dot products of a table's rows with the user's vector, (n,)."""
        sums = products(block, self.columns, self.vector)
        sums -= self.offset
        return sums


def products(block: Floats, columns: slice, vector: Floats) -> Floats:
    """Return the dot products of some columns of rows with a vector, (n,)."""
    # `dot` would copy columns out of wider rows first; `@` costs more where there are no others.
    found: Floats = (
        block.dot(vector) if block.shape[1] == len(vector) else block[:, columns] @ vector
    )
    return found


class _Segment(NamedTuple):
    """Tables of the same bits beside one another, packed as one."""

    bits: int
    width: int
    stored: slice
    columns: slice


class _Table(NamedTuple):
    segment: _Segment
    part: slice
    """Its columns in the run, before packing."""
    columns: slice
    """Those it needs of a widened row."""


class RowFormat:
    """How the rows of one array are stored: tables side by side, (kind, width) each.

    All "float32" or all "int8": an array of that dtype. Otherwise bytes: int8 as it is; int6 and int4 packed, tables
    of the same kind that are neighbours as one. Raises ValueError for "float32" beside others.
    """

    def __init__(self, *tables: tuple[str, int]) -> None:
        kinds = {kind for kind, _ in tables}
        if "float32" in kinds and len(kinds) > 1:
            raise ValueError(
                f"tables = {', '.join(sorted(kinds))} in one row, expected all float32 or none"
            )
        self.quantized = kinds != {"float32"}
        self.dtype = np.dtype("<f4" if not self.quantized else "i1" if kinds == {"int8"} else "u1")
        self.packed = self.dtype.kind == "u"
        self.width = self.columns = 0
        """Entries of a stored row, and of a widened one."""
        self._segments: list[tuple[_Segment, list[int]]] = []
        self._tables: list[_Table] = []
        for kind, neighbours in itertools.groupby(tables, key=lambda table: table[0]):
            self._add(BITS.get(kind, 8), [width for _, width in neighbours])

    def _add(self, bits: int, widths: list[int]) -> None:
        size = packed_width(sum(widths), bits)
        wide = size if bits == 8 else 2 * size
        stored, columns = (
            slice(self.width, self.width + size),
            slice(self.columns, self.columns + wide),
        )
        segment = _Segment(bits, sum(widths), stored, columns)
        self.width, self.columns = stored.stop, columns.stop
        self._segments.append((segment, widths))
        for start, width in zip(itertools.accumulate(widths[:-1], initial=0), widths, strict=True):
            part = slice(start, start + width)
            used = part
            if bits == 6 and width:
                found = np.flatnonzero(_expand_query(segment, part, np.ones(width, np.float32)))
                used = slice(int(found[0]), int(found[-1]) + 1)
            self._tables.append(
                _Table(segment, part, slice(columns.start + used.start, columns.start + used.stop))
            )

    def join(self, tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the stored rows (n, ``width``) of entries (n, width of the table) for each table."""
        if not self.packed:
            return np.concatenate(tables, 1, dtype=self.dtype)
        parts, remaining = [], list(tables)
        for segment, widths in self._segments:
            rows = np.concatenate([remaining.pop(0) for _ in widths], 1)
            parts.append(rows.view(np.uint8) if segment.bits == 8 else pack(rows, segment.bits))
        return np.concatenate(parts, 1)

    def quantize(self, *tables: Floats) -> tuple[NDArray[Any], Scales]:
        """Return stored rows (n, ``width``) of vectors, and their scales (n, tables); those of float32 are 1."""
        if not self.quantized:
            return self.join(tables), np.ones((len(tables[0]), len(tables)), np.float32)
        rounded = [
            quantize_rows(rows, table.segment.bits)
            for table, rows in zip(self._tables, tables, strict=True)
        ]
        scales: Scales = np.stack([scale for _, scale in rounded], 1)
        return self.join([rows for rows, _ in rounded]), scales

    def widen(self, stored: NDArray[Any], out: Floats | None = None) -> Floats:
        """Return stored rows as float32 (n, ``columns``), into ``out`` where given: what a ``Query`` is for."""
        if out is None:
            out = np.empty((len(stored), self.columns), np.float32)
        if not self.packed:
            out[...] = stored
            return out
        for segment, _ in self._segments:
            # Whole rows at once where there is one segment: loops over a few columns are slow.
            part = stored if len(self._segments) == 1 else stored[:, segment.stored]
            wide = out[:, segment.columns]
            size = part.shape[1]
            if segment.bits == 8:
                wide[...] = part.view(np.int8)
            else:
                wide[:, :size] = part & _LOW[segment.bits]
                wide[:, size:] = part >> segment.bits
        return out

    def query(self, table: int, user: Floats) -> Query:
        """Return what the widened columns of a table are multiplied with for a user's vector (width,).

        With whole numbers below ``rowwise.exact_limit`` every partial sum stays an exact integer: an entry plus its
        offset, and that of a column in two-bit parts, is at most 63.
        """
        segment, part, columns = self._tables[table]
        offset = np.float32(_ZERO[segment.bits]) * np.add.reduce(user)
        if segment.bits == 6:
            first = segment.columns.start
            user = _expand_query(segment, part, user)[columns.start - first : columns.stop - first]
        return Query(columns, user, offset)

    def values(self, stored: NDArray[Any], table: int = 0) -> Floats:
        """Return the entries of one table, (n, width of the table), as float32."""
        if not self.packed and len(self._tables) == 1:
            return stored.astype(np.float32)
        segment, part, _ = self._tables[table]
        rows = stored[:, segment.stored]
        if segment.bits < 8:
            return unpack(rows, segment.width, segment.bits)[:, part]
        return (rows.view(np.int8) if self.packed else rows)[:, part].astype(np.float32)

    def invalid_value(self, stored: NDArray[Any]) -> str | None:
        """Say which value no writer stores, if one is there; with -128 sums would not be exact."""
        for table, (segment, _, _) in enumerate(self._tables if self.quantized else ()):
            if self.values(stored, table).min(initial=0.0) < -MAX_ENTRY[segment.bits]:
                return f"the value {-MAX_ENTRY[segment.bits] - 1}, which no int{segment.bits} table has"
        return None


def _expand_query(segment: _Segment, part: slice, user: Floats) -> Floats:
    """Return the factors of a run's widened columns in 6 bits: the last quarter stands in two-bit parts."""
    size = -(-segment.width // 4)
    vector = np.zeros(4 * size, np.float32)
    vector[part] = user
    last = vector[3 * size :]
    return np.concatenate([vector, 4.0 * last, 16.0 * last], dtype=np.float32)
