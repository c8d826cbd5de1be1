"""Items given by their row numbers, which skips the id lookup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.ids import preview
from tlrec_edge.errors import ArgumentError
from tlrec_edge.types import Indices

_NOT_LISTS = (str, bytes, bytearray, memoryview, Mapping, np.ndarray)
"""Iterables that hold no list of ids: a `memoryview` would give bytes, which look like ids."""

_KINDS: dict[type, str] = {str: "the string", set: "the set"}


class ItemRows:
    """Items of one bundle by row number. Every method that takes item ids takes them instead.

    ``Recommender.rows`` looks ids up once and returns their rows; later calls with the rows skip
    the lookup. Row numbers are only valid for the bundle they come from; another one refuses them.

    Args:
        values: Row numbers (n,); -1 is an unknown item.
        bundle_id: The bundle that the rows belong to, as ``Recommender.rows`` sets it; "" is
            accepted by every bundle.

    Raises:
        ArgumentError: If ``values`` is not a list of integers from -1 on.

    Example:
        >>> from tlrec_edge import Recommender
        >>> rec = Recommender.open("bundle")
        >>> history = rec.rows(["item-1", "item-2"])
        >>> history += rec.rows(["item-3"])
        >>> len(history), len(rec.recommend(history, k=5).items)
        (3, 5)

    Attributes:
        values: The row numbers (n,), read-only.
        bundle_id: The bundle that the rows belong to, or "".
        all_known: Whether no row is -1.
        max_row: The largest row number, -1 if there are none.
    """

    __slots__ = ("_key", "all_known", "bundle_id", "max_row", "values")

    def __init__(self, values: NDArray[np.integer[Any]], bundle_id: str = "") -> None:
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise _not_rows(values)
        # A copy in intp: `ndarray.take` would convert every other type of index on each call.
        self.values: Indices = np.array(array, np.intp)
        lowest = int(self.values.min(initial=0))
        if self.values.ndim != 1 or lowest < -1:
            raise _not_rows(values)
        self.values.setflags(write=False)
        self.bundle_id = bundle_id
        self.all_known = lowest == 0
        self.max_row = int(self.values.max(initial=-1))
        self._key = hash(self.values.tobytes())

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, later: ItemRows) -> ItemRows:
        """Return these items and then ``later``: ``rows + rec.rows([new])`` adds an event."""
        if not isinstance(later, ItemRows):
            return NotImplemented
        if self.bundle_id and later.bundle_id and self.bundle_id != later.bundle_id:
            raise ArgumentError("rows of two bundles cannot be joined: use one bundle's `rows`")
        joined = np.concatenate([self.values, later.values])
        return ItemRows(joined, self.bundle_id or later.bundle_id)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> ItemRows: ...
    def __getitem__(self, at: int | slice) -> int | ItemRows:
        if isinstance(at, slice):
            return ItemRows(self.values[at], self.bundle_id)
        return int(self.values[at])

    def __reduce__(self) -> tuple[type[ItemRows], tuple[Indices, str]]:
        # Without the hash, which differs between processes.
        return ItemRows, (self.values, self.bundle_id)

    def __iter__(self) -> Iterator[int]:
        return iter(self.values.tolist())

    def __hash__(self) -> int:
        return self._key

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ItemRows)
            and self._key == other._key
            and self.bundle_id == other.bundle_id
            and np.array_equal(self.values, other.values)
        )


def _not_rows(values: Any) -> ArgumentError:
    return ArgumentError(f"rows: expected a list of row numbers from -1 on, got {preview(values)}")


def as_list(
    values: Any, name: str, content: str = "item ids", ordered: bool = True
) -> list[Any] | ItemRows:
    """Return the argument called ``name`` as a list; ``ItemRows`` are returned unchanged.

    ``content`` is what a message expects the list to hold. Raises ArgumentError if ``values`` is a
    string, a mapping, not iterable, or a set although the list is ``ordered``.
    """
    if type(values) is list or type(values) is ItemRows:
        return values
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return list(values.tolist())
    is_unordered = ordered and isinstance(values, Set)
    if isinstance(values, Iterable) and not isinstance(values, _NOT_LISTS) and not is_unordered:
        return list(values)
    kind = _KINDS.get(type(values), type(values).__name__)
    hint = "; a set has no order" if is_unordered else ""
    raise ArgumentError(f"{name}: expected a list of {content}, got {kind} {preview(values)}{hint}")
