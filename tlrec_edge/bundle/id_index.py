"""A hash index from ids to rows, as flat arrays that can be memory-mapped and shared.

The ids themselves are in a string table. The index sorts them into 2**b buckets by the last b bits
of a 32-bit hash (CRC-32), with at least as many buckets as ids:

- ``buckets`` (2**b + 1,): entries ``buckets[i]`` up to ``buckets[i + 1]`` belong to bucket i
- ``hashes`` (n,) and ``rows`` (n,): the hash and the row of each id, bucket by bucket

A lookup reads the entries of one bucket, about one on average, and keeps those with the same hash.
Two ids can have the same hash, so it then compares the length and every byte of the stored id:
a collision never returns the row of another id.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import REMEDY
from tlrec_edge.bundle.ids import ItemId, as_text, encode_id
from tlrec_edge.errors import BundleError, DataError
from tlrec_edge.types import Bools, Bytes, Indices, Ints, Longs

Hashes = NDArray[np.uint32]
_SEED = 0x7E1EC
_MAX_BUCKET = 1024
"""Largest number of ids in one bucket. More occur only if ids were chosen to collide."""
_CACHED_IDS = 65_536
_MAX_CACHED_LENGTH = 256
_ID_TYPES = {str, int}
_CHUNK = 1 << 16


def build_index(data: Bytes, offsets: Longs, name: str = "id") -> dict[str, NDArray[Any]]:
    """Return the arrays ``buckets``, ``rows`` and ``hashes`` for the ids of a string table.

    Raises DataError if an id is empty or occurs twice, or if more than 1,024 ids share a bucket.
    Messages call the ids ``name``.
    """
    n = len(offsets) - 1
    empty = np.flatnonzero(offsets[1:] == offsets[:-1])
    if len(empty):
        raise DataError(f"{name} {int(empty[0])} is empty; give every row an id")
    view = np.ascontiguousarray(data).data
    hashes = hash_all(view, offsets)
    count = 1 << max(0, (n - 1).bit_length())
    bucket = hashes & np.uint32(count - 1)
    # By bucket, then by hash: a repeated id is then next to an equal hash.
    order = np.lexsort((hashes, bucket))
    hashes = hashes[order]
    _check_unique(view, offsets, order, hashes, name)
    per_bucket = np.bincount(bucket, minlength=count)
    if per_bucket.max() > _MAX_BUCKET:
        raise DataError(
            f"{per_bucket.max():,} of {name} have the same hash, which makes lookups slow; "
            "rename some of them"
        )
    buckets = np.zeros(count + 1, np.int32)
    np.cumsum(per_bucket, out=buckets[1:])
    return {"buckets": buckets, "rows": order.astype(np.int32), "hashes": hashes}


def hash_all(view: memoryview, offsets: Longs) -> Hashes:
    """Return the CRC-32 of each string of a table, (n,)."""
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
    view: memoryview, offsets: Longs, order: Indices, hashes: Hashes, name: str
) -> None:
    """Raise DataError if an id occurs twice; only ids with the same hash are compared."""
    row_of: dict[bytes, int] = {}
    hash_of_rows = -1
    for at in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
        if hashes[at] != hash_of_rows:
            row_of, hash_of_rows = {}, int(hashes[at])
        for row in order[at : at + 2].tolist():
            encoded = bytes(view[offsets[row] : offsets[row + 1]])
            if row_of.setdefault(encoded, row) != row:
                text = encoded.decode("utf-8", "replace")
                raise DataError(
                    f"{name} {text!r:.80} is in rows {row_of[encoded]} and {row}; "
                    "every id must be unique"
                )


class IdIndex:
    """The rows of ids, looked up in a bundle's index. Safe to use from several threads.

    Ids that were found are cached, within a limit on their number and length. ``name`` is
    the table's name in error messages.
    """

    def __init__(
        self,
        data: Bytes,
        offsets: Longs,
        index: Mapping[str, NDArray[Any]],
        name: str = "the id index",
    ) -> None:
        self._data, self._offsets, self._name = data, offsets, name
        self._buckets: Ints = index["buckets"]
        self._rows: Ints = index["rows"]
        self._hashes: Hashes = index["hashes"]
        self._mask = np.uint32(len(self._buckets) - 2)
        self._cache: dict[ItemId, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, ids: Sequence[ItemId] | NDArray[Any]) -> Ints:
        """Return the row of each id, -1 if the bundle does not have it.

        Raises ArgumentError if an id is neither a string nor an integer, and BundleError if the
        index is damaged.
        """
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        # Before the cache is read: True and 1.0 equal the integer 1, but are not ids.
        if set(map(type, values)) - _ID_TYPES:
            values = [as_text(value) for value in values]
        cache = self._cache
        try:
            return np.fromiter(map(cache.__getitem__, values), np.int32, len(values))
        except KeyError:
            missing = [value for value in values if value not in cache]
        keys = _encode_all(missing)
        rows = self._look_up(keys)
        self._remember(missing, rows, keys)
        if len(missing) == len(values):
            return rows
        looked_up = dict(zip(missing, rows.tolist(), strict=True))
        return np.array(
            [looked_up[value] if value in looked_up else cache[value] for value in values], np.int32
        )

    def row(self, value: ItemId) -> int:
        """Return the row of one id, -1 if the bundle does not have it."""
        return int(self.rows([value])[0])

    @property
    def cache_bytes(self) -> int:
        """Size in bytes of the cached ids and their rows."""
        cache = self._cache.copy()  # in one step, because other threads add to it
        return sys.getsizeof(cache) + sum(map(sys.getsizeof, (*cache, *cache.values())))

    def _look_up(self, keys: list[bytes]) -> Ints:
        hashes = np.fromiter(map(zlib.crc32, keys, itertools.repeat(_SEED)), np.uint32, len(keys))
        bucket = hashes & self._mask
        first = self._buckets.take(bucket)
        counts = self._buckets.take(bucket + np.uint32(1)) - first
        ends = counts.cumsum()
        if len(keys) and ends[-1] > _MAX_BUCKET * len(keys):
            # Before a damaged index makes the lines below allocate all memory.
            raise self._damaged(f"{ends[-1]:,} entries in the buckets of {len(keys):,} ids")
        try:
            # The entries of all keys' buckets at once: entry at[i] is compared with key[i].
            key = np.arange(len(keys)).repeat(counts)
            at = (first + counts - ends).repeat(counts) + np.arange(len(key))
            same_hash = np.flatnonzero(self._hashes.take(at) == hashes.take(key))
            key, rows = key.take(same_hash), self._rows.take(at.take(same_hash))
            equal = self._are_equal([keys[i] for i in key.tolist()], rows)
        except (IndexError, ValueError) as error:  # numpy's, for entries outside their tables
            raise self._damaged(str(error)) from error
        result = np.full(len(keys), -1, np.int32)
        result[key[equal]] = rows[equal]
        return result

    def _damaged(self, reason: str) -> BundleError:
        return BundleError(f"{self._name} is damaged ({reason}); {REMEDY}")

    def _are_equal(self, keys: list[bytes], rows: Ints) -> Bools:
        """Return whether each key is the id that is stored at its row."""
        starts = self._offsets.take(rows)
        lengths = np.fromiter(map(len, keys), np.int64, len(keys))
        same_length = self._offsets.take(rows + 1) - starts == lengths
        equal: Bools = same_length & (lengths > 0)
        if len(keys) and equal.all():
            return self._have_same_bytes(keys, starts, lengths)
        if len(at := np.flatnonzero(equal)):
            candidates = [keys[i] for i in at.tolist()]
            equal[at] = self._have_same_bytes(candidates, starts[at], lengths[at])
        return equal

    def _have_same_bytes(self, keys: list[bytes], starts: Longs, lengths: Longs) -> Bools:
        """Compare each key with the stored bytes of the same length (at least 1) at its start."""
        # One comparison for the bytes of all keys: byte j of the joined keys belongs to a key that
        # begins at `ends - lengths`, so its counterpart is at j + start - (end - length).
        ends = lengths.cumsum()
        positions = (starts - ends + lengths).repeat(lengths) + np.arange(ends[-1])
        same = self._data.take(positions) == np.frombuffer(b"".join(keys), np.uint8)
        equal: Bools = np.logical_and.reduceat(same, ends - lengths)
        return equal

    def _remember(self, ids: list[ItemId], rows: Ints, keys: list[bytes]) -> None:
        # Unknown ids are not cached, so a stream of made-up ids cannot evict the popular ones.
        if rows.min(initial=0) < 0 or max(map(len, keys), default=0) > _MAX_CACHED_LENGTH:
            cached = [
                at
                for at, key in enumerate(keys)
                if rows[at] >= 0 and len(key) <= _MAX_CACHED_LENGTH
            ]
            ids, rows = [ids[at] for at in cached], rows[cached]
        # Threads may read the old dictionary meanwhile, so a full one is replaced, not cleared.
        if len(self._cache) + len(ids) > _CACHED_IDS:
            self._cache = {}
        if len(ids) <= _CACHED_IDS:
            self._cache.update(zip(ids, rows.tolist(), strict=True))


def _encode_all(values: Sequence[ItemId]) -> list[bytes]:
    try:
        # Fastest for the usual case of well-formed strings; an integer raises TypeError.
        return list(map(str.encode, values))  # type: ignore[arg-type]  # an integer raises
    except (TypeError, UnicodeEncodeError):
        return [encode_id(as_text(value)) for value in values]
