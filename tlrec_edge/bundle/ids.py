"""Strings and ids as flat arrays: a string table, and a hash index from ids to rows, both memory-mapped and shared.

The index keeps, bucket by bucket, each id's row and its 32-bit CRC. A lookup compares the hash, the length and then
every byte, so a collision can never return another id's row.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.errors import BundleError, DataError
from tlrec_edge.types import Bytes, Indices, Ints, Longs

ItemId = str | int
_SEED = 0x7E1EC
_HOT_IDS = 65_536
_HOT_LENGTH = 256
_ID_TYPES = {str, int}
_CHUNK = 1 << 16
_MAX_BUCKET = 1024


def encode(text: str) -> bytes:
    """Return UTF-8, lone surrogates included: an id from a broken export is still an id."""
    return text.encode("utf-8", "surrogatepass")


def as_text(value: Any) -> str:
    """Return the id as the bundle stores it; integers are looked up by their digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    raise DataError(
        f"an id must be a string or an integer, got {type(value).__name__} {preview(value)}"
    )


class ItemRows:
    """Items by their rows in one bundle, from ``Recommender.rows``: taken wherever item ids are, without looking up.

    ``values`` (n,) are row numbers; -1 is an unknown item. Not to be kept beyond the bundle: another one's rows differ.
    """

    __slots__ = ("_key", "all_known", "max_row", "values")

    def __init__(self, values: NDArray[np.integer[Any]]) -> None:
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise DataError(
                f"rows: expected a list of row numbers from -1 on, got {preview(values)}"
            )
        self.values: Indices = np.array(
            array, np.intp
        )  # what numpy's `take` reads without a conversion
        lowest, self.max_row = (int(self.values.min(initial=0)), int(self.values.max(initial=-1)))
        if self.values.ndim != 1 or lowest < -1:
            raise DataError(
                f"rows: expected a list of row numbers from -1 on, got {preview(values)}"
            )
        self.all_known = lowest == 0
        self.values.setflags(write=False)
        self._key = hash(self.values.tobytes())

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, later: ItemRows) -> ItemRows:
        """Return these items followed by later ones: a history goes on without its ids being looked up again."""
        return (
            ItemRows(np.concatenate([self.values, later.values]))
            if isinstance(later, ItemRows)
            else NotImplemented
        )

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> ItemRows: ...
    def __getitem__(self, at: int | slice) -> int | ItemRows:
        return ItemRows(self.values[at]) if isinstance(at, slice) else int(self.values[at])

    def __reduce__(self) -> tuple[type[ItemRows], tuple[Indices]]:
        return ItemRows, (self.values,)  # hashes differ between processes

    def __iter__(self) -> Iterator[int]:
        return iter(self.values.tolist())

    def __hash__(self) -> int:
        return self._key

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ItemRows)
            and self._key == other._key
            and np.array_equal(self.values, other.values)
        )


def as_list(values: Any, name: str, content: str = "item ids") -> list[Any] | ItemRows:
    """Return argument ``name`` as a list. Raises DataError for what is none, such as a string or a mapping."""
    if type(values) is list or type(values) is ItemRows:
        return values
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return list(values.tolist())
    if isinstance(values, Iterable) and not isinstance(
        values, (str, bytes, bytearray, Mapping, np.ndarray)
    ):
        return list(values)
    what = "the string" if isinstance(values, str) else type(values).__name__
    raise DataError(f"{name}: expected a list of {content}, got {what} {preview(values)}")


def preview(value: Any) -> str:
    """Return a value's start on one line, for a message."""
    return " ".join(f"{value!r:.60}".split())


def build_strings(values: Iterable[str]) -> tuple[Bytes, Longs]:
    """Return the UTF-8 bytes of all values in a row, and n + 1 offsets."""
    parts: list[bytes] = []
    lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    chunk: list[bytes] = []
    for value in values:
        chunk.append(encode(value))
        if len(chunk) == _CHUNK:
            parts.append(b"".join(chunk))
            lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
            chunk = []
    parts.append(b"".join(chunk))
    lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(np.concatenate(lengths))


def build_index(data: Bytes, offsets: Longs, what: str = "id") -> dict[str, NDArray[Any]]:
    """Return the arrays ``buckets``, ``rows`` and ``hashes``. Raises DataError on an empty or repeated id.

    Also where more than 1,024 fall into one of at least n buckets, which no ids do by chance.
    """
    n = len(offsets) - 1
    empty = np.flatnonzero(offsets[1:] == offsets[:-1])
    if len(empty):
        raise DataError(f"{what} {int(empty[0])} is empty; give every row an id")
    view = np.ascontiguousarray(data).data
    hashes = hash_all(view, offsets)
    count = 1 << max(0, (n - 1).bit_length())
    # Sorted by (bucket, hash): equal hashes are neighbours, which is where a repeated id must be.
    order = np.lexsort((hashes, hashes & np.uint32(count - 1)))
    hashes = hashes[order]
    _check_unique(view, offsets, order, hashes, what)
    per_bucket = np.bincount(hashes & np.uint32(count - 1), minlength=count)
    if per_bucket.max() > _MAX_BUCKET:
        raise DataError(
            f"{per_bucket.max():,} of {what} have hashes alike, which makes look-ups slow; rename some"
        )
    buckets = np.zeros(count + 1, np.int32)
    np.cumsum(per_bucket, out=buckets[1:])
    return {"buckets": buckets, "rows": order.astype(np.int32), "hashes": hashes}


def hash_all(view: memoryview, offsets: Longs) -> NDArray[np.uint32]:
    """Return the CRC-32 of each string as an index keeps it, (n,)."""
    n, crc = len(offsets) - 1, zlib.crc32
    hashes = np.empty(n, np.uint32)
    # In chunks: ten million offsets as one Python list would take more memory than the index.
    for start in range(0, n, _CHUNK):
        ends = offsets[start : start + _CHUNK + 1].tolist()
        hashes[start : start + _CHUNK] = [
            crc(view[a:b], _SEED) for a, b in itertools.pairwise(ends)
        ]
    return hashes


def _check_unique(
    view: memoryview, offsets: Longs, order: NDArray[np.intp], hashes: NDArray[np.uint32], what: str
) -> None:
    seen: dict[bytes, int] = {}
    last = -1
    for at in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
        if hashes[at] != last:
            seen, last = {}, int(hashes[at])
        for row in order[at : at + 2].tolist():
            text = bytes(view[offsets[row] : offsets[row + 1]])
            if seen.setdefault(text, row) != row:
                name = text.decode("utf-8", "surrogatepass")
                raise DataError(
                    f"{what} {name!r:.80} stands in rows {seen[text]} and {row}; ids must be unique"
                )


class StringTable:
    """Strings by row, decoded on demand from mapped bytes; ``name`` is what a message calls the table."""

    def __init__(self, data: Bytes, offsets: Longs, name: str = "strings") -> None:
        self._data, self._offsets, self._name = data, offsets, name

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(row)
        start, end = self._offsets[row], self._offsets[row + 1]
        try:
            return self._data[start:end].tobytes().decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{self._name}: row {row} is not UTF-8: altered; export the bundle again"
            ) from error

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]:
        """Return the strings of many rows. Raises IndexError for one that is not there."""
        at = np.asarray(rows, np.intp)
        if at.min(initial=0) < 0:
            raise IndexError(f"row {at.min()}")
        view, ends = (
            self._data.data,
            self._offsets.take(at + 1),
        )  # which raises where a row is too high
        try:
            spans = zip(self._offsets.take(at).tolist(), ends.tolist(), strict=True)
            return [str(view[start:end], "utf-8", "surrogatepass") for start, end in spans]
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{self._name}: a row is not UTF-8: altered; export the bundle again"
            ) from error


class IdIndex:
    """Ids to rows. ``rows`` is safe from many threads; the hot cache is bounded in entries and in bytes."""

    def __init__(self, data: Bytes, offsets: Longs, index: Mapping[str, NDArray[Any]]) -> None:
        self._data, self._offsets = data, offsets
        self._buckets: Ints = index["buckets"]
        self._rows: Ints = index["rows"]
        self._hashes: NDArray[np.uint32] = index["hashes"]
        self._mask = len(self._buckets) - 2
        self._hot: dict[ItemId, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, ids: Sequence[ItemId] | NDArray[Any]) -> Ints:
        """Return the row of each id, -1 where it is unknown."""
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if set(map(type, values)) - _ID_TYPES:  # a bool or a float equals an integer, but is no id
            values = [as_text(value) for value in values]
        hot = self._hot
        try:
            return np.fromiter(map(hot.__getitem__, values), np.int32, len(values))
        except KeyError:
            missing = [value for value in values if value not in hot]
        keys = _encode_all(missing)
        rows = self._look_up(keys)
        self._remember(missing, rows, keys)
        if len(missing) == len(values):
            return rows
        looked_up = dict(zip(missing, rows.tolist(), strict=True))
        return np.array(
            [looked_up[value] if value in looked_up else hot[value] for value in values], np.int32
        )

    @property
    def hot_bytes(self) -> int:
        """The bytes of the ids that were looked up of late."""
        hot = list(self._hot)
        return sys.getsizeof(self._hot) + sum(map(sys.getsizeof, hot))

    def row(self, value: ItemId) -> int:
        """Return the row of one id, -1 if it is unknown."""
        return int(self.rows([value])[0])

    def _look_up(self, keys: list[bytes]) -> Ints:
        hashes = np.fromiter(map(zlib.crc32, keys, itertools.repeat(_SEED)), np.uint32, len(keys))
        bucket = hashes & np.uint32(self._mask)
        first = self._buckets.take(bucket)
        counts = self._buckets.take(bucket + np.uint32(1)) - first
        ends = counts.cumsum()
        if len(keys) and ends[-1] > _MAX_BUCKET * len(
            keys
        ):  # before a damaged index asks for all memory
            raise ValueError(f"{ends[-1]} ids in the buckets of {len(keys)}")
        # Every id of every bucket at once: on average there is one a key.
        key = np.arange(len(keys)).repeat(counts)
        at = (first + counts - ends).repeat(counts) + np.arange(len(key))
        same = np.flatnonzero(self._hashes.take(at) == hashes.take(key))
        key, rows = key.take(same), self._rows.take(at.take(same))
        equal = self._equal([keys[i] for i in key.tolist()], rows)
        found = np.full(len(keys), -1, np.int32)
        found[key[equal]] = rows[equal]
        return found

    def _equal(self, keys: list[bytes], rows: Ints) -> NDArray[np.bool_]:
        starts = self._offsets.take(rows)
        lengths = np.fromiter(map(len, keys), np.int64, len(keys))
        equal: NDArray[np.bool_] = (self._offsets.take(rows + 1) - starts == lengths) & (
            lengths > 0
        )
        if len(keys) and equal.all():
            return self._same_bytes(keys, starts, lengths)
        if known := np.flatnonzero(equal).tolist():
            equal[known] = self._same_bytes([keys[i] for i in known], starts[known], lengths[known])
        return equal

    def _same_bytes(self, keys: list[bytes], starts: Longs, lengths: Longs) -> NDArray[np.bool_]:
        """Compare keys with the stored ids of the same lengths, at least 1, that begin at ``starts``."""
        ends = lengths.cumsum()
        # Position of every query byte in the table: its offset within the key, moved to where the stored id starts.
        positions = (starts - ends + lengths).repeat(lengths) + np.arange(ends[-1])
        same = self._data.take(positions) == np.frombuffer(b"".join(keys), np.uint8)
        matches: NDArray[np.bool_] = np.logical_and.reduceat(same, ends - lengths)
        return matches

    def _remember(self, ids: list[ItemId], rows: Ints, keys: list[bytes]) -> None:
        # Only known ids are kept, so a stream of made-up ones cannot push the hot ones out.
        if rows.min(initial=0) < 0 or max(map(len, keys), default=0) > _HOT_LENGTH:
            known = [at for at, key in enumerate(keys) if rows[at] >= 0 and len(key) <= _HOT_LENGTH]
            ids, rows = [ids[at] for at in known], rows[known]
        if len(self._hot) + len(ids) > _HOT_IDS:
            self._hot = {}
        if len(ids) <= _HOT_IDS:
            self._hot.update(zip(ids, rows.tolist(), strict=True))


def _encode_all(values: Sequence[ItemId]) -> list[bytes]:
    try:
        return list(map(str.encode, values))  # type: ignore[arg-type]  # of integers it is the error below
    except (TypeError, UnicodeEncodeError):
        return [encode(str(value)) for value in values]


def user_key_hash(user: str, key: str) -> str:
    """Return the keyed BLAKE2b hash (RFC 7693) under which a user id is stored; ``key`` is the manifest's hex salt."""
    return hashlib.blake2b(encode(user), key=bytes.fromhex(key), digest_size=16).hexdigest()
