"""What the arrays of a bundle say of one another: lengths at opening, every value at full verification."""

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
_CHUNK = 1 << 16
_STRINGS_PER_BLOCK = 1 << 16


def check_lengths(path: Path, shape: ModelShape, arrays: Arrays) -> None:
    """Check ends and lengths without reading the tables. Raises BundleError that names the file."""
    pairs = [("wide_indptr.npy", "wide_columns.npy"), ("wide_indptr.npy", "wide_values.npy")]
    pairs += [("user_wide_indptr.npy", f"user_wide_{part}.npy") for part in ("columns", "values")]
    pairs += [
        (name, name.replace(".offsets", ".bytes"))
        for name in arrays
        if name.endswith(".offsets.npy")
    ]
    for offsets, data in pairs:
        if offsets not in arrays:
            continue
        ends, length = arrays[offsets], len(arrays[data])
        if not len(ends) or ends[0] != 0 or ends[-1] != length:
            raise BundleError(
                f"{path / offsets} does not end at the {length} entries of {data}; {REMEDY}"
            )
    if (
        shape.taste is None
        and "taste_rows.npy" in arrays
        and arrays["taste_rows.npy"].shape[1] > shape.r
    ):
        raise BundleError(
            f"{path / 'taste_rows.npy'} is wider than the block it belongs to; {REMEDY}"
        )
    if CANDIDATE_TEXT in arrays:
        table = arrays.get(TEXT_TABLE)
        if table is None or table.shape[1] != arrays[CANDIDATE_TEXT].shape[1]:
            raise BundleError(f"{path / CANDIDATE_TEXT} is not as wide as {TEXT_TABLE}; {REMEDY}")
    columns = arrays.get("head_columns.npy")
    if columns is not None and not 3 <= len(columns) == arrays["head_step.npy"].shape[1]:
        raise BundleError(f"{path / 'head_columns.npy'} is not as wide as head_step.npy; {REMEDY}")
    if "list_starts.npy" in arrays:
        starts, count = arrays["list_starts.npy"], len(arrays["list_centres.npy"])
        if len(starts) != count + 1 or not count or starts[0] or starts[-1] != shape.candidates:
            raise BundleError(
                f"{path / 'list_starts.npy'} does not fit its candidates and centres; {REMEDY}"
            )
    for name in _indexes(arrays):
        buckets, entries = arrays[f"{name}.buckets.npy"], len(arrays[f"{name}.offsets.npy"]) - 1
        count = len(buckets) - 1
        if count < 1 or count & (count - 1) or buckets[0] != 0 or buckets[-1] != entries:
            raise BundleError(
                f"{path / name}.buckets.npy is not an index of {entries} ids; {REMEDY}"
            )
        for part in ("rows", "hashes"):
            if len(arrays[f"{name}.{part}.npy"]) != entries:
                raise BundleError(
                    f"{path / name}.{part}.npy is not an index of {entries} ids; {REMEDY}"
                )
    if "user_rows.npy" in arrays:
        users = len(arrays["user_rows.npy"])
        if users + 1 != len(arrays["user_wide_indptr.npy"]) or users + 1 != len(
            arrays["users.offsets.npy"]
        ):
            raise BundleError(
                f"{path / 'user_rows.npy'} has {users} users, its neighbours differ; {REMEDY}"
            )


def check_contents(path: Path, shape: ModelShape, arrays: Arrays) -> None:
    """Check every value that is used as a position, shown, or added to a score. Raises BundleError as above."""
    limits = dict.fromkeys(("wide_columns.npy", "user_wide_columns.npy"), (0, shape.candidates))
    limits["groups.npy"] = (-1, shape.groups)
    limits |= {
        f"{name}.rows.npy": (0, len(arrays[f"{name}.rows.npy"])) for name in _indexes(arrays)
    }
    if "item_category.npy" in arrays:
        limits["item_category.npy"] = (-1, len(arrays["category_names.offsets.npy"]) - 1)
    row_formats = {
        "history_rows.npy": shape.history_format,
        "candidate_rows.npy": shape.candidate_format,
    }
    if "taste_rows.npy" in arrays:
        width = arrays["taste_rows.npy"].shape[1] if shape.taste is None else shape.taste
        row_formats["taste_rows.npy"] = shape.taste_format(width)
    for name, array in arrays.items():
        low, end = limits.get(name, (0, 0))
        if name in limits and array.size and not (low <= array.min() and array.max() < end):
            raise BundleError(f"{path / name} points outside 0..{end - 1}; {REMEDY}")
        if (
            name.endswith(("indptr.npy", "offsets.npy", "buckets.npy", "starts.npy"))
            and (array[1:] < array[:-1]).any()
        ):
            raise BundleError(f"{path / name} is not in rising order; {REMEDY}")
        if name == "list_starts.npy" and (array[1:] == array[:-1]).any():
            raise BundleError(f"{path / name} holds an empty list; {REMEDY}")
        if (name == "head_reach.npy" and array.min() < 0) or (
            name == "head_step.npy" and array[0].min() <= 0
        ):
            raise BundleError(f"{path / name} bounds nothing; {REMEDY}")
        if reason := _invalid_numbers(name, array, row_formats.get(name)):
            raise BundleError(f"{path / name} holds {reason}; {REMEDY}")
    for name in arrays:
        if name.endswith(".offsets.npy"):
            _check_strings(path, arrays, name.removesuffix(".offsets.npy"))
    for name in _indexes(arrays):
        _check_index(path, arrays, name)
    if "user_rows.npy" in arrays:
        _check_sorted(path, arrays["user_wide_indptr.npy"], arrays["user_wide_columns.npy"])


def _indexes(arrays: Arrays) -> list[str]:
    return [name.removesuffix(".buckets.npy") for name in arrays if name.endswith(".buckets.npy")]


def _invalid_numbers(name: str, array: Array, row_format: RowFormat | None) -> str | None:
    """Say what no writer puts into a table: scores would be NaN, infinite or no longer exact."""
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        if row_format is not None and (invalid := row_format.invalid_value(chunk)):
            return invalid
        if array.dtype.kind != "f" or not chunk.size:
            continue
        if not np.isfinite(chunk).all():
            return "NaN or infinite values"
        if float(np.abs(chunk).max()) > MAX_MAGNITUDE:  # float: half precision has no such number
            return f"values above {MAX_MAGNITUDE:g}"
        if name.endswith("_scale.npy") and chunk.min() < 0:
            return "a negative scale"
    return None


def _check_strings(path: Path, arrays: Arrays, name: str) -> None:
    offsets = arrays[f"{name}.offsets.npy"]
    for start, data in _string_blocks(arrays, name):
        try:
            data.tobytes().decode("utf-8", "surrogatepass")
            valid = True
        except UnicodeDecodeError:
            valid = False
        first = offsets[start : start + _STRINGS_PER_BLOCK + 1]
        # Valid as a whole, and no string starts inside a character: each string is valid.
        starts = data.take((first[:-1] - first[0])[first[:-1] < first[1:]])
        if not valid or (starts & 0xC0 == 0x80).any():
            raise BundleError(f"{path / name}.bytes.npy holds what is not UTF-8; {REMEDY}")


def _string_blocks(arrays: Arrays, name: str) -> Iterator[tuple[int, Array]]:
    data, offsets = arrays[f"{name}.bytes.npy"], arrays[f"{name}.offsets.npy"]
    count = len(offsets) - 1
    for start, end in itertools.pairwise([*range(0, count, _STRINGS_PER_BLOCK), count]):
        yield start, data[offsets[start] : offsets[end]]


def _check_index(path: Path, arrays: Arrays, name: str) -> None:
    """Check that a lookup finds every id, in its own row."""
    offsets, buckets, rows, hashes = (
        arrays[f"{name}.{part}.npy"] for part in ("offsets", "buckets", "rows", "hashes")
    )
    if (offsets[1:] == offsets[:-1]).any():
        raise BundleError(f"{path / name}.offsets.npy holds an empty id; {REMEDY}")
    if len(rows) and (np.bincount(rows, minlength=len(rows)) != 1).any():
        raise BundleError(f"{path / name}.rows.npy names a row twice; {REMEDY}")
    if (hash_all(arrays[f"{name}.bytes.npy"].data, offsets)[rows] != hashes).any():
        raise BundleError(
            f"{path / name}.hashes.npy does not hold the hashes of the ids in {name}.bytes.npy; {REMEDY}"
        )
    bucket = np.repeat(np.arange(len(buckets) - 1), np.diff(buckets))
    if (hashes & np.uint32(len(buckets) - 2) != bucket).any():
        raise BundleError(
            f"{path / name}.buckets.npy puts ids where no lookup finds them; {REMEDY}"
        )


def _check_sorted(path: Path, indptr: Array, columns: Array) -> None:
    descents = np.flatnonzero(columns[1:] <= columns[:-1]) + 1
    if not np.isin(descents, indptr).all():
        raise BundleError(
            f"{path / 'user_wide_columns.npy'} is not in rising order within a row; {REMEDY}"
        )
