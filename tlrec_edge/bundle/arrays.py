"""The arrays of bundle format 1: which files hold them, and their dtypes and shapes."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from tlrec_edge.bundle.format import CANDIDATE_TEXT, ITEM_TOWER, SCAN_BLOCK, TEXT_TABLE, ModelShape
from tlrec_edge.choices import EVENTS
from tlrec_edge.core.packing import RowFormat

INDEXED = frozenset({"item_ids", "users"})
"""String tables that have an id index."""

_FILES_OF_PART = {
    "low_rank": ("taste_rows.npy", "taste_scale.npy"),
    "names": ("item_names.bytes.npy",),
    "categories": ("item_category.npy", "category_names.bytes.npy"),
    "item_tower": (ITEM_TOWER,),
    "candidate_text": (CANDIDATE_TEXT,),
    "prefix_bound": (
        "head_columns.npy",
        "head_turn.npy",
        "head_mean.npy",
        "head_step.npy",
        "head_reach.npy",
    ),
    "ivf": ("list_starts.npy", "list_centres.npy"),
    "users": ("user_rows.npy", "users.bytes.npy"),
}
"""A bundle has an optional part if its manifest lists one of these files; then it needs all."""


class ArraySpec(NamedTuple):
    """What a reader expects of one array."""

    dtypes: tuple[str, ...]
    """The dtypes it may have, little endian."""
    shape: tuple[int | None, ...]
    """Its shape; None is any length."""


Specs = dict[str, ArraySpec]


def required_arrays(shape: ModelShape) -> Specs:
    """Return the arrays that every bundle must have, by file name."""
    n, c = shape.items, shape.candidates
    arrays = {
        "history_rows.npy": _rows(shape.history_format, n),
        "history_scale.npy": ArraySpec(shape.scale_dtypes, (n,)),
        "candidate_rows.npy": _rows(shape.candidate_format, c),
        "candidate_scale.npy": ArraySpec(shape.scale_dtypes, (c, 2)),
        "candidate_bias.npy": _float32(c),
        "wide_indptr.npy": _int64(n + 1),
        "wide_columns.npy": ArraySpec((shape.column_dtype,), (None,)),
        "groups.npy": _int32(n, shape.group_columns),
        "interest_in.npy": _float32(shape.groups, shape.r),
        "position_bias.npy": _float32(shape.length),
        "event_bias.npy": _float32(len(EVENTS)),
        "age_bias.npy": _float32(None),
    }
    if shape.tables.wide == "int8":
        arrays["wide_values.npy"] = ArraySpec(("|i1",), (None,))
        arrays["wide_scale.npy"] = ArraySpec(shape.scale_dtypes, (n,))
    else:
        arrays["wide_values.npy"] = _float32(None)
    return arrays | _strings("item_ids", n)


def optional_arrays(shape: ModelShape, files: Container[str]) -> Specs:
    """Return the arrays of the optional parts that a bundle with these ``files`` has."""
    parts = _optional_parts(shape)
    arrays: Specs = {}
    for part, names in _FILES_OF_PART.items():
        if any(name in files for name in names):
            arrays |= parts[part]
    return arrays


def _optional_parts(shape: ModelShape) -> dict[str, Specs]:
    n, c, width = shape.items, shape.candidates, shape.d + shape.r
    text_vectors = ArraySpec(("<f2", "<f4"), (None, None))
    return {
        "low_rank": {
            "taste_rows.npy": _low_rank_rows(shape),
            "taste_scale.npy": ArraySpec(shape.scale_dtypes, (n,)),
        },
        "names": _strings("item_names", n),
        "categories": {"item_category.npy": _int32(n)} | _strings("category_names", None),
        "item_tower": {TEXT_TABLE: text_vectors},
        "candidate_text": {CANDIDATE_TEXT: text_vectors._replace(shape=(c, None))},
        "prefix_bound": {
            "head_columns.npy": _uint8(None, -(-c // SCAN_BLOCK) * SCAN_BLOCK),
            "head_turn.npy": _float64(width, width),
            "head_mean.npy": _float64(width),
            "head_step.npy": _float64(2, None),
            "head_reach.npy": _float64(2),
        },
        "ivf": {
            "list_starts.npy": _int64(None),
            "list_centres.npy": _float32(None, width + 2),
        },
        "users": {
            "user_rows.npy": _float32(None, width),
            "user_wide_indptr.npy": _int64(None),
            "user_wide_columns.npy": _int32(None),
            "user_wide_values.npy": _float32(None),
            **_strings("users", None),
        },
    }


def _low_rank_rows(shape: ModelShape) -> ArraySpec:
    width = shape.low_rank_width
    if width is None:  # a kind that is not packed, so its dtype doesn't depend on the width
        return _rows(shape.low_rank_format(0), shape.items)._replace(shape=(shape.items, None))
    return _rows(shape.low_rank_format(width), shape.items)


def _rows(row_format: RowFormat, n: int) -> ArraySpec:
    return ArraySpec((row_format.dtype.str,), (n, row_format.width))


def _strings(name: str, n: int | None) -> Specs:
    """Return the arrays of a string table with n strings, and of its index if it has one."""
    arrays = {
        f"{name}.bytes.npy": _uint8(None),
        f"{name}.offsets.npy": _int64(None if n is None else n + 1),
    }
    if name in INDEXED:
        arrays[f"{name}.buckets.npy"] = _int32(None)
        arrays[f"{name}.rows.npy"] = _int32(n)
        arrays[f"{name}.hashes.npy"] = ArraySpec(("<u4",), (n,))
    return arrays


def _float32(*shape: int | None) -> ArraySpec:
    return ArraySpec(("<f4",), shape)


def _float64(*shape: int | None) -> ArraySpec:
    return ArraySpec(("<f8",), shape)


def _int32(*shape: int | None) -> ArraySpec:
    return ArraySpec(("<i4",), shape)


def _int64(*shape: int | None) -> ArraySpec:
    return ArraySpec(("<i8",), shape)


def _uint8(*shape: int | None) -> ArraySpec:
    return ArraySpec(("|u1",), shape)
