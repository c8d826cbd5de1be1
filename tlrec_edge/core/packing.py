"""Rows of 8, 6 or 4 bits packed into bytes, and dot products with them that are exact in float32.

How a row of ``width`` entries is packed is part of bundle format 1:

- 4 bits, h = width / 2: byte j holds column j in its low four bits and column h + j in its high
  four bits.
- 6 bits, q = width / 4: byte i * q + j, with i < 3, holds column i * q + j in its low six bits, and
  bits 2i and 2i + 1 of column 3q + j in its high two bits.

A width that does not divide evenly is padded with entries of 0.

Distant columns share a byte, not neighbours, so that a block of rows unpacks into contiguous
parts: ``packed & 15`` is the left half of the columns and ``packed >> 4`` the right half.

Entries are stored in offset binary, as the entry plus 8 (4 bits) or plus 32 (6 bits). Stored
values are then never negative, and unpacking needs no sign extension. The offset is not even
subtracted from the entries: ``sum((e + 8) * u) = sum(e * u) + 8 * sum(u)``, so a ``Query``
subtracts it once from each dot product.
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
"""Storage formats of a table's rows."""
WRITTEN = ("float32", "int8", "int4")
"""Storage formats of new tables; int6 is only read, from models and bundles of 0.1."""
_OFFSET = {4: 8, 6: 32, 8: 0}
"""Number added to an entry before it is stored, by bits."""
_LOW_MASK = {4: 0b1111, 6: 0b11_1111}
_PARTS = {4: 2, 6: 4}
"""Number of parts of equal width that the columns of a row are split into, by bits."""


def pack(rows: NDArray[np.int8], bits: int) -> Bytes:
    """Pack the entries (n, width) of 4 or 6 bits each into bytes (n, ``packed_width``)."""
    n, width = rows.shape
    part = -(-width // _PARTS[bits])
    stored = np.full((n, part * _PARTS[bits]), _OFFSET[bits], np.uint8)
    stored[:, :width] = rows + np.int8(_OFFSET[bits])
    if bits == 4:
        halves: Bytes = stored[:, :part] | stored[:, part:] << 4
        return halves
    packed, last = stored[:, : 3 * part], stored[:, 3 * part :]
    for i in range(3):
        packed[:, i * part : (i + 1) * part] |= (last >> (2 * i) & 0b11) << 6
    return np.ascontiguousarray(packed)


def packed_width(width: int, bits: int) -> int:
    """Return the number of bytes of a packed row of ``width`` entries."""
    return width if bits == 8 else -(-width // _PARTS[bits]) * bits * _PARTS[bits] // 8


def unpack(packed: Bytes, width: int, bits: int) -> Floats:
    """Return the entries (n, width) of packed rows as float32."""
    low, high = packed & _LOW_MASK[bits], packed >> bits
    if bits == 6:  # the last quarter of the columns, two bits from each of the other three
        part = packed.shape[1] // 3
        high = high[:, :part] | high[:, part : 2 * part] << 2 | high[:, 2 * part :] << 4
    entries: Floats = np.concatenate([low, high], 1)[:, :width].astype(np.float32)
    entries -= _OFFSET[bits]
    return entries


class Query(NamedTuple):
    """A user's vector in the form to multiply with widened rows (see ``RowFormat.widen``)."""

    columns: slice
    """Columns of the widened rows to multiply."""
    vector: Floats
    """Their factors."""
    offset: np.float32
    """Excess of every dot product, because the entries are stored with an offset."""

    def dot(self, block: Floats) -> Floats:
        """Return the dot products (n,) of the user's vector and each row of a widened block."""
        sums = products(block, self.columns, self.vector)
        sums -= self.offset
        return sums


def products(block: Floats, columns: slice, vector: Floats) -> Floats:
    """Return the dot products (n,) of a vector and some columns of each row."""
    # `dot` is faster, but only on contiguous rows: it would first copy columns of a wider block.
    if block.shape[1] == len(vector):
        result: Floats = block.dot(vector)
    else:
        result = block[:, columns] @ vector
    return result


class _Segment(NamedTuple):
    """Neighbouring tables with the same number of bits, packed together."""

    bits: int
    width: int
    """Number of entries, before packing."""
    stored: slice
    """Columns of a stored row."""
    widened: slice
    """Columns of a widened row."""


class _Table(NamedTuple):
    segment: _Segment
    entries: slice
    """The table's entries within its segment, before packing."""
    widened: slice
    """Columns of a widened row that hold the table's entries."""


class RowFormat:
    """The storage format of an array whose rows hold one or more tables side by side.

    Each table is a (kind, width) pair. If all are "float32" or all are "int8", the array has that
    dtype. Otherwise it holds bytes: int8 entries as they are, int6 and int4 entries packed, and
    neighbouring tables of the same kind packed together.

    Raises ValueError if "float32" is mixed with other kinds.
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
        self.width = 0
        """Number of columns of a stored row."""
        self.columns = 0
        """Number of columns of a widened row."""
        self._segments: list[tuple[_Segment, list[int]]] = []
        self._tables: list[_Table] = []
        for kind, neighbours in itertools.groupby(tables, key=lambda table: table[0]):
            self._add_segment(BITS.get(kind, 8), [width for _, width in neighbours])

    def _add_segment(self, bits: int, widths: list[int]) -> None:
        """Append neighbouring tables of the same kind."""
        stored_width = packed_width(sum(widths), bits)
        widened_width = stored_width if bits == 8 else 2 * stored_width
        segment = _Segment(
            bits,
            sum(widths),
            slice(self.width, self.width + stored_width),
            slice(self.columns, self.columns + widened_width),
        )
        self.width, self.columns = segment.stored.stop, segment.widened.stop
        self._segments.append((segment, widths))
        starts = itertools.accumulate(widths[:-1], initial=0)
        for start, width in zip(starts, widths, strict=True):
            entries = slice(start, start + width)
            used = entries
            if bits == 6 and width:
                factors = _expand_query(segment, entries, np.ones(width, np.float32))
                nonzero = np.flatnonzero(factors)
                used = slice(int(nonzero[0]), int(nonzero[-1]) + 1)
            first = segment.widened.start
            widened = slice(first + used.start, first + used.stop)
            self._tables.append(_Table(segment, entries, widened))

    def join(self, tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the stored rows (n, ``width``) for each table's entries (n, table's width)."""
        if not self.packed:
            return np.concatenate(tables, 1, dtype=self.dtype)
        parts, remaining = [], list(tables)
        for segment, widths in self._segments:
            rows = np.concatenate([remaining.pop(0) for _ in widths], 1)
            parts.append(rows.view(np.uint8) if segment.bits == 8 else pack(rows, segment.bits))
        return np.concatenate(parts, 1)

    def quantize(self, *tables: Floats) -> tuple[NDArray[Any], Scales]:
        """Return the stored rows (n, ``width``) for the vectors of each table, and their scales.

        Scales are (n, number of tables), and 1 for float32.
        """
        if not self.quantized:
            return self.join(tables), np.ones((len(tables[0]), len(tables)), np.float32)
        rounded = [
            quantize_rows(rows, table.segment.bits)
            for table, rows in zip(self._tables, tables, strict=True)
        ]
        scales: Scales = np.stack([scale for _, scale in rounded], 1)
        return self.join([rows for rows, _ in rounded]), scales

    def widen(self, stored: NDArray[Any], out: Floats | None = None) -> Floats:
        """Return stored rows in float32, (n, ``columns``), to multiply with a ``Query``.

        Entries keep their offset, and the two-bit parts of a 6-bit entry stay in three columns.
        The rows are written into ``out`` if it is given.
        """
        if out is None:
            out = np.empty((len(stored), self.columns), np.float32)
        if not self.packed:
            out[...] = stored
            return out
        for segment, _ in self._segments:
            # Full rows if possible: numpy is slow on slices of a few columns.
            packed = stored if len(self._segments) == 1 else stored[:, segment.stored]
            widened = out[:, segment.widened]
            size = packed.shape[1]
            if segment.bits == 8:
                widened[...] = packed.view(np.int8)
            else:
                widened[:, :size] = packed & _LOW_MASK[segment.bits]
                widened[:, size:] = packed >> segment.bits
        return out

    def query(self, table: int, user: Floats) -> Query:
        """Return the query for a user's vector (width,) against one of the tables.

        If the vector holds integers up to ``rowwise.exact_limit``, dot products are exact. The
        limit allows for stored values up to 127, and packed ones are at most 63, even if two-bit
        parts are summed with factors 1, 4 and 16. So every partial sum is an integer below 2**24,
        which float32 represents exactly.
        """
        segment, entries, widened = self._tables[table]
        offset = np.float32(_OFFSET[segment.bits]) * np.add.reduce(user)
        if segment.bits == 6:
            first = segment.widened.start
            factors = _expand_query(segment, entries, user)
            user = factors[widened.start - first : widened.stop - first]
        return Query(widened, user, offset)

    def values(self, stored: NDArray[Any], table: int = 0) -> Floats:
        """Return the entries of one table, (n, table's width), as float32."""
        if not self.packed and len(self._tables) == 1:
            return stored.astype(np.float32)
        segment, entries, _ = self._tables[table]
        rows = stored[:, segment.stored]
        if segment.bits < 8:
            return unpack(rows, segment.width, segment.bits)[:, entries]
        return (rows.view(np.int8) if self.packed else rows)[:, entries].astype(np.float32)

    def invalid_value(self, stored: NDArray[Any]) -> str | None:
        """Return a description of a value that no writer stores, None if there is no such value.

        That is -128, -32 or -8: sums with them could exceed the limit up to which they are exact.
        """
        for table, (segment, _, _) in enumerate(self._tables if self.quantized else ()):
            largest = MAX_ENTRY[segment.bits]
            if self.values(stored, table).min(initial=0.0) < -largest:
                kind = f"int{segment.bits}"
                return (
                    f"the value {-largest - 1}, outside the range -{largest}..{largest} of {kind}"
                )
        return None


def _expand_query(segment: _Segment, entries: slice, user: Floats) -> Floats:
    """Return the factors of a 6-bit segment's widened columns for a user's vector.

    An entry of the last quarter is widened as three two-bit parts, which count 1, 4 and 16.
    """
    quarter = -(-segment.width // 4)
    factors = np.zeros(4 * quarter, np.float32)
    factors[entries] = user
    last = factors[3 * quarter :]
    return np.concatenate([factors, 4.0 * last, 16.0 * last], dtype=np.float32)
