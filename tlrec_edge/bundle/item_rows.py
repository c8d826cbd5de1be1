"""Items given by their row numbers, which skips the id lookup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.ids import preview
from tlrec_edge.errors import ArgumentError
from tlrec_edge.types import Indices


class ItemRows:
    """Items of one bundle by row number. Every method that takes item ids takes them instead.

    ``Recommender.rows`` looks ids up once and returns their rows; later calls with the rows skip
    the lookup. Row numbers are only valid for the bundle they come from.

    Args:
        values: Row numbers (n,); -1 is an unknown item.

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
        all_known: Whether no row is -1.
        max_row: The largest row number, -1 if there are none.
    """

    __slots__ = ("_key", "all_known", "max_row", "values")

    def __init__(self, values: NDArray[np.integer[Any]]) -> None:
        array = np.asarray(values)
        if array.dtype.kind not in "iu" and array.size:
            raise _not_rows(values)
        # A copy in intp: `ndarray.take` would convert every other type of index on each call.
        self.values: Indices = np.array(array, np.intp)
        lowest = int(self.values.min(initial=0))
        if self.values.ndim != 1 or lowest < -1:
            raise _not_rows(values)
        self.values.setflags(write=False)
        self.all_known = lowest == 0
        self.max_row = int(self.values.max(initial=-1))
        self._key = hash(self.values.tobytes())

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, later: ItemRows) -> ItemRows:
        """Return these items and then ``later``: ``rows + rec.rows([new])`` adds an event."""
        if not isinstance(later, ItemRows):
            return NotImplemented
        return ItemRows(np.concatenate([self.values, later.values]))

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> ItemRows: ...
    def __getitem__(self, at: int | slice) -> int | ItemRows:
        return ItemRows(self.values[at]) if isinstance(at, slice) else int(self.values[at])

    def __reduce__(self) -> tuple[type[ItemRows], tuple[Indices]]:
        return ItemRows, (self.values,)  # without the hash, which differs between processes

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


def _not_rows(values: Any) -> ArgumentError:
    return ArgumentError(f"rows: expected a list of row numbers from -1 on, got {preview(values)}")


def as_list(values: Any, name: str, content: str = "item ids") -> list[Any] | ItemRows:
    """Return the argument called ``name`` as a list; ``ItemRows`` are returned unchanged.

    ``content`` is what a message expects the list to hold. Raises ArgumentError if ``values`` is a
    string, a mapping or not iterable.
    """
    if type(values) is list or type(values) is ItemRows:
        return values
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return list(values.tolist())
    not_lists = (str, bytes, bytearray, Mapping, np.ndarray)
    if isinstance(values, Iterable) and not isinstance(values, not_lists):
        return list(values)
    kind = "the string" if isinstance(values, str) else type(values).__name__
    raise ArgumentError(f"{name}: expected a list of {content}, got {kind} {preview(values)}")
