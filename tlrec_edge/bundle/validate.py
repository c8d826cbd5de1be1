"""Check that a bundle's arrays agree: lengths whenever it is opened, all values on request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import CANDIDATE_TEXT, MAX_MAGNITUDE, REMEDY, TEXT_TABLE, ModelShape
from tlrec_edge.bundle.id_index import hash_all
from tlrec_edge.core.packing import RowFormat
from tlrec_edge.errors import BundleError

Array = NDArray[Any]
Arrays = Mapping[str, Array]
_ASCENDING = ("indptr.npy", "offsets.npy", "buckets.npy", "starts.npy")
_MIN_PREFIX_COLUMNS = 3
"""A prefix bound has at least one rotated column, the item bias and the norm of the remainder."""
_CHUNK = 1 << 16
_STRINGS_PER_BLOCK = 1 << 16


def check_lengths(path: Path, shape: ModelShape, arrays: Arrays) -> None:
    """Check that the lengths of the arrays agree, without reading the tables.

    Raises BundleError if two arrays of the bundle at ``path`` disagree; the message names the file.
    """
    _check_ends(path, arrays)
    _check_widths(path, shape, arrays)
    if "list_starts.npy" in arrays:
        starts, count = arrays["list_starts.npy"], len(arrays["list_centres.npy"])
        if len(starts) != count + 1 or not count or starts[0] or starts[-1] != shape.candidates:
            raise _error(
                path,
                "list_starts.npy",
                f"does not divide {shape.candidates} candidates into {count} clusters",
            )
    for name in _indexed(arrays):
        _check_index_lengths(path, arrays, name)
    if "user_rows.npy" in arrays:
        users = len(arrays["user_rows.npy"])
        for name in ("user_wide_indptr.npy", "users.offsets.npy"):
            if len(arrays[name]) != users + 1:
                count = len(arrays[name]) - 1
                raise _error(path, "user_rows.npy", f"has {users} users, but {name} has {count}")


def check_contents(path: Path, shape: ModelShape, arrays: Arrays) -> None:
    """Check every value that is used as an index, shown to users or added to a score.

    Raises BundleError if a value is not valid; the message names the file.
    """
    limits, row_formats = _limits(shape, arrays), _row_formats(shape, arrays)
    for name, array in arrays.items():
        if name in limits:
            _check_range(path, name, array, *limits[name])
        if name.endswith(_ASCENDING) and (array[1:] < array[:-1]).any():
            raise _error(path, name, "is not in ascending order")
        if reason := _invalid_numbers(name, array, row_formats.get(name)):
            raise _error(path, name, f"holds {reason}")
    _check_search(path, arrays)
    for name in arrays:
        if name.endswith(".offsets.npy"):
            _check_strings(path, arrays, name.removesuffix(".offsets.npy"))
    for name in _indexed(arrays):
        _check_index(path, arrays, name)
    if "user_rows.npy" in arrays:
        _check_sorted(path, arrays["user_wide_indptr.npy"], arrays["user_wide_columns.npy"])


def _error(path: Path, name: str, problem: str) -> BundleError:
    return BundleError(f"{path / name} {problem}; {REMEDY}")


def _check_ends(path: Path, arrays: Arrays) -> None:
    """Check that offsets begin at 0 and end at the length of the array they divide."""
    pairs = [
        (f"{table}_indptr.npy", f"{table}_{part}.npy")
        for table in ("wide", "user_wide")
        for part in ("columns", "values")
    ]
    pairs += [
        (name, name.replace(".offsets", ".bytes"))
        for name in arrays
        if name.endswith(".offsets.npy")
    ]
    for name, divided in pairs:
        if name in arrays:
            offsets, length = arrays[name], len(arrays[divided])
            if not len(offsets) or offsets[0] != 0 or offsets[-1] != length:
                raise _error(path, name, f"does not end at the {length} entries of {divided}")


def _check_widths(path: Path, shape: ModelShape, arrays: Arrays) -> None:
    low_rank = arrays.get("taste_rows.npy")
    if shape.low_rank_width is None and low_rank is not None and low_rank.shape[1] > shape.r:
        width = low_rank.shape[1]
        raise _error(path, "taste_rows.npy", f"has {width} columns, more than the r = {shape.r}")
    text = arrays.get(CANDIDATE_TEXT)
    if text is not None:
        table = arrays.get(TEXT_TABLE)
        if table is None or table.shape[1] != text.shape[1]:
            raise _error(path, CANDIDATE_TEXT, f"is not as wide as {TEXT_TABLE}")
    columns = arrays.get("head_columns.npy")
    if columns is not None:
        steps = arrays["head_step.npy"]
        if len(columns) < _MIN_PREFIX_COLUMNS or len(columns) != steps.shape[1]:
            raise _error(path, "head_columns.npy", "is not as wide as head_step.npy")


def _check_index_lengths(path: Path, arrays: Arrays, name: str) -> None:
    buckets, ids = arrays[f"{name}.buckets.npy"], len(arrays[f"{name}.offsets.npy"]) - 1
    count = len(buckets) - 1
    power_of_two = count >= 1 and count & (count - 1) == 0
    if not power_of_two or buckets[0] != 0 or buckets[-1] != ids:
        raise _error(path, f"{name}.buckets.npy", f"is not an index of {ids} ids")
    for part in ("rows", "hashes"):
        if len(arrays[f"{name}.{part}.npy"]) != ids:
            raise _error(path, f"{name}.{part}.npy", f"is not an index of {ids} ids")


def _limits(shape: ModelShape, arrays: Arrays) -> dict[str, tuple[int, int]]:
    """Return the smallest valid index and the end of the valid ones, for arrays of indices."""
    limits = {
        "wide_columns.npy": (0, shape.candidates),
        "user_wide_columns.npy": (0, shape.candidates),
        "groups.npy": (-1, shape.groups),
    }
    for name in _indexed(arrays):
        limits[f"{name}.rows.npy"] = (0, len(arrays[f"{name}.rows.npy"]))
    if "item_category.npy" in arrays:
        limits["item_category.npy"] = (-1, len(arrays["category_names.offsets.npy"]) - 1)
    return limits


def _row_formats(shape: ModelShape, arrays: Arrays) -> dict[str, RowFormat]:
    formats = {
        "history_rows.npy": shape.history_format,
        "candidate_rows.npy": shape.candidate_format,
    }
    if "taste_rows.npy" in arrays:
        width = shape.low_rank_width
        if width is None:
            width = arrays["taste_rows.npy"].shape[1]
        formats["taste_rows.npy"] = shape.low_rank_format(width)
    return formats


def _indexed(arrays: Arrays) -> list[str]:
    """Return the names of the string tables that have an id index."""
    return [name.removesuffix(".buckets.npy") for name in arrays if name.endswith(".buckets.npy")]


def _check_range(path: Path, name: str, array: Array, low: int, end: int) -> None:
    if array.size and not (low <= array.min() and array.max() < end):
        raise _error(path, name, f"has an index outside {low}..{end - 1}")


def _invalid_numbers(name: str, array: Array, row_format: RowFormat | None) -> str | None:
    """Describe a number that would make scores NaN, infinite or inexact; None if all are fine."""
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        if row_format is not None and (invalid := row_format.invalid_value(chunk)):
            return invalid
        if array.dtype.kind != "f" or not chunk.size:
            continue
        if not np.isfinite(chunk).all():
            return "NaN or infinite values"
        # As a Python float: float16 can't represent the limit it is compared with.
        if float(np.abs(chunk).max()) > MAX_MAGNITUDE:
            return f"values above {MAX_MAGNITUDE:g}"
        if name.endswith("_scale.npy") and chunk.min() < 0:
            return "a negative scale"
    return None


def _check_search(path: Path, arrays: Arrays) -> None:
    starts = arrays.get("list_starts.npy")
    if starts is not None and (starts[1:] == starts[:-1]).any():
        raise _error(path, "list_starts.npy", "has an empty cluster")
    if "head_reach.npy" in arrays and arrays["head_reach.npy"].min() < 0:
        raise _error(path, "head_reach.npy", "holds a negative norm, so it is not an upper bound")
    if "head_step.npy" in arrays and arrays["head_step.npy"][0].min() <= 0:
        raise _error(path, "head_step.npy", "holds a step that is not positive")


def _check_strings(path: Path, arrays: Arrays, name: str) -> None:
    offsets = arrays[f"{name}.offsets.npy"]
    for start, data in _string_blocks(arrays, name):
        try:
            data.tobytes().decode("utf-8")
            valid = True
        except UnicodeDecodeError:
            valid = False
        # A block that is valid UTF-8 consists of valid strings if none begins inside a character,
        # that is, with a continuation byte (0b10......).
        block = offsets[start : start + _STRINGS_PER_BLOCK + 1]
        begins = (block[:-1] - block[0])[block[:-1] < block[1:]]
        if not valid or (data.take(begins) & 0xC0 == 0x80).any():
            raise _error(path, f"{name}.bytes.npy", "is not UTF-8")


def _string_blocks(arrays: Arrays, name: str) -> Iterator[tuple[int, Array]]:
    """Yield the first row and the bytes of each block of strings."""
    data, offsets = arrays[f"{name}.bytes.npy"], arrays[f"{name}.offsets.npy"]
    count = len(offsets) - 1
    for start, end in itertools.pairwise([*range(0, count, _STRINGS_PER_BLOCK), count]):
        yield start, data[offsets[start] : offsets[end]]


def _check_index(path: Path, arrays: Arrays, name: str) -> None:
    """Check that a lookup finds every id, and in its own row."""
    offsets, buckets, rows, hashes = (
        arrays[f"{name}.{part}.npy"] for part in ("offsets", "buckets", "rows", "hashes")
    )
    if (offsets[1:] == offsets[:-1]).any():
        raise _error(path, f"{name}.offsets.npy", "has an empty id")
    if len(rows) and (np.bincount(rows, minlength=len(rows)) != 1).any():
        raise _error(path, f"{name}.rows.npy", "has the same row twice")
    if (hash_all(arrays[f"{name}.bytes.npy"].data, offsets)[rows] != hashes).any():
        raise _error(
            path, f"{name}.hashes.npy", f"does not hold the hashes of the ids in {name}.bytes.npy"
        )
    bucket = np.repeat(np.arange(len(buckets) - 1), np.diff(buckets))
    if (hashes & np.uint32(len(buckets) - 2) != bucket).any():
        raise _error(
            path, f"{name}.buckets.npy", "has ids in buckets in which no lookup finds them"
        )


def _check_sorted(path: Path, indptr: Array, columns: Array) -> None:
    descents = np.flatnonzero(columns[1:] <= columns[:-1]) + 1
    if not np.isin(descents, indptr).all():
        raise _error(path, "user_wide_columns.npy", "is not in ascending order within a row")
