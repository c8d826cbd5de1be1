"""Rows of 8, 6 or 4 bits as bytes, and float32 blocks of them whose dot products stay exact.

4 bits: byte j holds column j in its low half and column h + j in its high half; h is half the width.
6 bits: of q = width / 4, byte i * q + j (i < 3) holds column i * q + j in its low six bits and bits 2i, 2i + 1 of
column 3q + j in its high two. Both are offset binary: what is stored is the entry plus 8 or 32. Widths that do not
divide are padded with entries of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.rowwise import MOST, Scales, quantize_rows

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
BITS = {"int8": 8, "int6": 6, "int4": 4}
KINDS = ("float32", *BITS)
"""What the rows of a table may be stored as."""
_ZERO = {4: 8, 6: 32}
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
    """A user's vector as widened rows are multiplied with: entry sum = row @ ``vector`` - ``offset``."""

    vector: Floats
    offset: np.float32 | None


class _Block(NamedTuple):
    bits: int
    width: int
    stored: slice
    columns: slice


class RowFormat:
    """How the rows of one array are stored: tables side by side, (kind, width) each.

    All "float32" or all "int8": an array of that dtype. Otherwise bytes: int8 as it is, int6 and int4 packed. Raises
    ValueError for "float32" beside others.
    """

    def __init__(self, *tables: tuple[str, int]) -> None:
        kinds = {kind for kind, _ in tables}
        if "float32" in kinds and len(kinds) > 1:
            raise ValueError(f"tables = {', '.join(sorted(kinds))} in one row, expected all float32 or none")
        self.exact = kinds != {"float32"}
        self.dtype = np.dtype("<f4" if not self.exact else "i1" if kinds == {"int8"} else "u1")
        self._packed = self.dtype.kind == "u"
        self._blocks: list[_Block] = []
        stored = columns = 0
        for kind, width in tables:
            bits = BITS.get(kind, 8)
            size = packed_width(width, bits)
            wide = size if bits == 8 else 2 * size
            self._blocks.append(_Block(bits, width, slice(stored, stored + size), slice(columns, columns + wide)))
            stored, columns = stored + size, columns + wide
        self.width, self.columns = stored, columns
        """Entries of a stored row, and of a widened one."""

    @property
    def blocks(self) -> list[slice]:
        """The columns of each table in a widened row."""
        return [block.columns for block in self._blocks]

    def join(self, tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the stored rows (n, ``width``) of entries (n, width of the table) for each table."""
        if not self._packed:
            return np.concatenate(tables, 1, dtype=self.dtype)
        pairs = zip(self._blocks, tables, strict=True)
        return np.concatenate([t.view(np.uint8) if b.bits == 8 else pack(t, b.bits) for b, t in pairs], 1)

    def quantize(self, *tables: Floats) -> tuple[NDArray[Any], Scales]:
        """Return stored rows (n, ``width``) of vectors, and their scales (n, tables); those of float32 are 1."""
        if not self.exact:
            return self.join(tables), np.ones((len(tables[0]), len(tables)), np.float32)
        rounded = [quantize_rows(table, block.bits) for block, table in zip(self._blocks, tables, strict=True)]
        return self.join([rows for rows, _ in rounded]), np.stack([scale for _, scale in rounded], 1)

    def widen(self, stored: NDArray[Any], out: Floats | None = None) -> Floats:
        """Return stored rows as float32 (n, ``columns``), into ``out`` where given: what a ``Query`` is for."""
        if not self._packed:
            if out is None:
                return stored.astype(np.float32)
            out[...] = stored
            return out
        if out is None:
            out = np.empty((len(stored), self.columns), np.float32)
        for bits, _, where, columns in self._blocks:
            part, wide = stored[:, where], out[:, columns]
            size = part.shape[1]
            if bits == 8:
                wide[...] = part.view(np.int8)
            else:
                wide[:, :size] = part & _LOW[bits]
                wide[:, size:] = part >> bits
        return out

    def query(self, table: int, user: Floats) -> Query:
        """Return what the widened columns of a table are multiplied with for a user's vector (width,).

        With whole numbers below ``rowwise.exact_limit`` every partial sum stays an exact integer: an entry plus its
        offset, and that of a column in two-bit parts, is at most 63.
        """
        bits, width, stored, _ = self._blocks[table]
        if bits == 8:
            return Query(user, None)
        part = (stored.stop - stored.start) * 8 // (bits * _PARTS[bits])
        vector = np.zeros(part * _PARTS[bits], np.float32)
        vector[:width] = user
        offset = np.float32(_ZERO[bits]) * vector.sum()
        if bits == 6:
            last = vector[3 * part :]
            vector = np.concatenate([vector, 4.0 * last, 16.0 * last], dtype=np.float32)
        return Query(vector, offset)

    def values(self, stored: NDArray[Any], table: int = 0) -> Floats:
        """Return the entries of one table, (n, width of the table), as float32."""
        bits, width, where, _ = self._blocks[table]
        part = stored[:, where]
        if not self._packed:
            return part.astype(np.float32)
        return part.view(np.int8).astype(np.float32) if bits == 8 else unpack(part, width, bits)

    def stranger(self, stored: NDArray[Any]) -> str | None:
        """Say which value no writer stores, if one is there; with -128 sums would not be exact."""
        for table, block in enumerate(self._blocks if self.exact else ()):
            bits = block.bits
            if self.values(stored, table).min(initial=0.0) < -MOST[bits]:
                return f"the value {-MOST[bits] - 1}, which no int{bits} table has"
        return None
