"""What a bundle of format 1 holds: file names, dtypes and shapes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.choices import EVENTS
from tlrec_edge.core.packing import ROW_KINDS, RowFormat
from tlrec_edge.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
REMEDY = "copy or export the bundle again"
"""The end of every message about a damaged bundle."""
ENCODER = "encoder.onnx"
ITEM_TOWER = "item_tower.onnx"
PREFIX_SCAN = "head_scan.onnx"
SCAN_BLOCK = 128
"""Heads to a block; their number is padded to whole blocks."""
FEATURES = "features.json"
TEXT_TABLE = "text_table.npy"
CANDIDATE_TEXT = "candidate_text.npy"
IVF_ARRAYS = ("list_starts", "list_centres")
PREFIX_ARRAYS = ("head_columns", "head_turn", "head_mean", "head_step", "head_reach")

INDEXED = frozenset({"item_ids", "users"})
"""String tables that also carry an id index."""
WIDE_KINDS = ("float32", "int8")
"""What the item-item weights may be stored as; int8 has a scale a history row."""
UINT16_COLUMNS = 65_536
"""Up to as many candidates, the columns of int8 weights are uint16."""
UNIFORM_KINDS = ("int8", "float32")
"""Kinds that ``tables`` may name by themselves, for all tables: with float32 scales and float32 weights."""
MAX_MAGNITUDE = 1e12
"""No float of a bundle is larger: products of any two, summed, stay finite in float32."""

_SIZES = {
    "d": "d",
    "r": "r",
    "length": "L",
    "items": "N",
    "candidates": "C",
    "group_columns": "g",
    "groups": "G",
    "max_history": "max_history",
}


class ArraySpec(NamedTuple):
    """What the manifest promises of one array; None in ``shape`` is any length."""

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Storage:
    """What each table is stored as: the manifest's ``tables``.

    One of ``UNIFORM_KINDS`` for all, as in older bundles, or an object with these names. Then the weights of the
    parts stand in the manifest (``weights``), not in the scales, which may be float16.
    """

    history: str
    candidate: str
    taste_in: str
    taste: str
    wide: str = "float32"

    def __post_init__(self) -> None:
        for name, kind in vars(self).items():
            known = WIDE_KINDS if name == "wide" else ROW_KINDS
            if kind not in known:
                raise ValueError(
                    f"tables: {name} = {kind!r:.40}, expected one of {', '.join(known)}"
                )
        RowFormat((self.candidate, 0), (self.taste, 0))  # raises where they do not fit into one row

    @classmethod
    def from_entry(cls, entry: Any) -> Storage:
        """Read the manifest's entry. Raises ValueError that names what is not known."""
        if isinstance(entry, Mapping):
            for name in entry.keys() ^ cls.__dataclass_fields__.keys():
                raise ValueError(
                    f"tables: {name!r:.40} is {'not known' if name in entry else 'missing'}"
                )
            return cls(**entry)
        if entry not in UNIFORM_KINDS:
            raise ValueError(
                f"tables = {entry!r:.40}, expected one of {', '.join(UNIFORM_KINDS)}, or the kind of each"
            )
        return cls(entry, entry, entry, entry)

    @property
    def entry(self) -> str | dict[str, str]:
        """The manifest's entry. An older reader refuses the object by its text."""
        return self.history if self.uniform else dict(vars(self))

    @property
    def uniform(self) -> bool:
        return self.history in UNIFORM_KINDS and self == Storage.from_entry(self.history)

    def __str__(self) -> str:
        rows = {self.history, self.candidate, self.taste_in, self.taste}
        if len(rows) > 1:
            return ", ".join(f"{name} {kind}" for name, kind in vars(self).items())
        return self.history if self.wide == "float32" else f"{self.history}, wide {self.wide}"


@dataclass(frozen=True)
class ModelShape:
    """The sizes every array of a bundle must agree with; ``taste`` is the width of taste_rows.npy, None = any."""

    d: int
    r: int
    length: int
    items: int
    candidates: int
    group_columns: int
    groups: int
    pad: float
    max_history: int
    tables: Storage
    taste: int | None = None

    def __post_init__(self) -> None:
        for name in ("r", "group_columns", "groups"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is negative")
        for name in ("d", "length", "items", "candidates", "max_history"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not abs(self.pad) <= MAX_MAGNITUDE:
            raise ValueError(f"pad = {self.pad}")
        if self.candidates > self.items:
            raise ValueError(f"{self.candidates} candidates of {self.items} items")
        if not 0 <= (self.taste or 0) <= self.r:
            raise ValueError(f"a taste table {self.taste} wide of a block {self.r} wide")

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> ModelShape:
        """Read the ``model`` section. Raises BundleError that names the entry at fault."""
        try:
            model = manifest["model"]
            sizes = {field: int(model[key]) for field, key in _SIZES.items()}
            tables = Storage.from_entry(manifest["tables"])
            taste = None if tables.uniform else int(model["taste"])
            return cls(**sizes, pad=float(model["pad"]), tables=tables, taste=taste)
        except KeyError as error:
            raise BundleError(
                f"{MANIFEST} has no entry {error}; export the bundle again"
            ) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(
                f"{MANIFEST} has a wrong model section: {error}; export the bundle again"
            ) from error

    @cached_property
    def history_format(self) -> RowFormat:
        return RowFormat((self.tables.history, self.d))

    @cached_property
    def candidate_format(self) -> RowFormat:
        """Deep block, then the block of taste."""
        return RowFormat((self.tables.candidate, self.d), (self.tables.taste, self.r))

    def taste_format(self, width: int) -> RowFormat:
        return RowFormat((self.tables.taste_in, width))


@dataclass(frozen=True)
class Scoring:
    """How user vectors are rounded (deep block, interest block), and what unknown items score.

    ``weights`` of deep part, item-item weights and taste_rows.npy: what the scales of plain tables hold themselves.
    ``repeat`` is added to the score of an item that the user already had.
    """

    scale: tuple[float, float]
    limit: tuple[int, int]
    unknown_score: float
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    repeat: float = 0.0

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], shape: ModelShape) -> Scoring:
        """Read and check the entries that scores depend on. Raises BundleError that names the entry at fault."""
        try:
            scale, limit = manifest["user_scale"], manifest["user_limit"]
            unknown = float(manifest["unknown_score"])
            weights = (1.0, 1.0, 1.0)
            if not shape.tables.uniform:
                stated = manifest["weights"]
                weights = float(stated["deep"]), float(stated["wide"]), float(stated["rest"])
            repeat = float(manifest.get("repeat", 0.0))  # bundles of before have none
            found = cls(
                (float(scale[0]), float(scale[1])),
                (int(limit[0]), int(limit[1])),
                unknown,
                weights,
                repeat,
            )
            found._check(shape)
            if manifest["user_ids"] not in (None, "hashed", "plain"):
                raise ValueError(
                    f"user_ids = {manifest['user_ids']!r}, expected null, 'hashed' or 'plain'"
                )
            if manifest["user_ids"] == "hashed":
                hashlib.blake2b(key=bytes.fromhex(manifest["user_key"]))
        except KeyError as error:
            raise BundleError(
                f"{MANIFEST} has no entry {error}; export the bundle again"
            ) from error
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise BundleError(
                f"{MANIFEST} has a wrong entry: {error}; export the bundle again"
            ) from error
        return found

    def _check(self, shape: ModelShape) -> None:
        if not abs(self.unknown_score) <= MAX_MAGNITUDE:
            raise ValueError(f"unknown_score = {self.unknown_score}")
        if not abs(self.repeat) <= MAX_MAGNITUDE:
            raise ValueError(f"repeat = {self.repeat}")
        for weight in (*self.weights, self.weights[0] * self.scale[0]):
            if not abs(weight) <= MAX_MAGNITUDE:
                raise ValueError(f"weights = {self.weights}")
        for name, scale, limit, width in zip(
            ("deep", "interest"), self.scale, self.limit, (shape.d, shape.r), strict=True
        ):
            # The two rules that make every dot product a whole number below 2**24 and every scaling exact.
            if not 2.0**-100 <= scale <= MAX_MAGNITUDE or math.frexp(scale)[0] != 0.5:
                raise ValueError(
                    f"user_scale {scale} of the {name} block is no power of two in 2**-100..{MAX_MAGNITUDE:g}"
                )
            if limit < 1 or 127 * limit * width >= 2**24:
                raise ValueError(
                    f"user_limit {limit} of the {name} block is outside 1..(2**24 - 1) / (127 * {width})"
                )


def required_arrays(shape: ModelShape) -> dict[str, ArraySpec]:
    """Return every array a bundle must hold."""
    f32, i32, i64 = ("<f4",), ("<i4",), ("<i8",)
    n, c = shape.items, shape.candidates
    arrays = {
        "history_rows.npy": _rows(shape.history_format, n),
        "history_scale.npy": ArraySpec(scales(shape), (n,)),
        "candidate_rows.npy": _rows(shape.candidate_format, c),
        "candidate_scale.npy": ArraySpec(scales(shape), (c, 2)),
        "candidate_bias.npy": ArraySpec(f32, (c,)),
        "wide_indptr.npy": ArraySpec(i64, (n + 1,)),
        "wide_columns.npy": ArraySpec(i32, (None,)),
        "wide_values.npy": ArraySpec(f32, (None,)),
        "groups.npy": ArraySpec(i32, (n, shape.group_columns)),
        "interest_in.npy": ArraySpec(f32, (shape.groups, shape.r)),
        "position_bias.npy": ArraySpec(f32, (shape.length,)),
        "event_bias.npy": ArraySpec(f32, (len(EVENTS),)),
        "age_bias.npy": ArraySpec(f32, (None,)),
    }
    if shape.tables.wide == "int8":
        arrays["wide_columns.npy"] = ArraySpec((column_dtype(c).str,), (None,))
        arrays["wide_values.npy"] = ArraySpec(("|i1",), (None,))
        arrays["wide_scale.npy"] = ArraySpec(scales(shape), (n,))
    arrays.update(string_arrays("item_ids", n))
    return arrays


def column_dtype(candidates: int) -> np.dtype[Any]:
    """Return the dtype of the columns of int8 weights."""
    return np.dtype("<u2" if candidates <= UINT16_COLUMNS else "<i4")


def scales(shape: ModelShape) -> tuple[str, ...]:
    return ("<f4",) if shape.tables.uniform else ("<f4", "<f2")


def _rows(row_format: RowFormat, n: int) -> ArraySpec:
    return ArraySpec((row_format.dtype.str,), (n, row_format.width))


def optional_arrays(shape: ModelShape, present: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Return the arrays of the optional parts that ``present`` (the manifest's files) shows to be there."""
    arrays: dict[str, ArraySpec] = {}
    if "taste_rows.npy" in present or "taste_scale.npy" in present:
        rows = _rows(shape.taste_format(shape.taste or 0), shape.items)
        arrays["taste_rows.npy"] = (
            rows if shape.taste is not None else ArraySpec(rows.dtypes, (shape.items, None))
        )
        arrays["taste_scale.npy"] = ArraySpec(scales(shape), (shape.items,))
    if "item_names.bytes.npy" in present:
        arrays.update(string_arrays("item_names", shape.items))
    if "item_category.npy" in present or "category_names.bytes.npy" in present:
        arrays["item_category.npy"] = ArraySpec(("<i4",), (shape.items,))
        arrays.update(string_arrays("category_names", None))
    if ITEM_TOWER in present:
        arrays[TEXT_TABLE] = ArraySpec(("<f2", "<f4"), (None, None))
    if CANDIDATE_TEXT in present:
        arrays[CANDIDATE_TEXT] = ArraySpec(("<f2", "<f4"), (shape.candidates, None))
    if any(f"{name}.npy" in present for name in PREFIX_ARRAYS):
        d = shape.d + shape.r
        columns = ((None,), (d, d), (d,), (2, None), (2,))
        arrays["head_columns.npy"] = ArraySpec(
            ("|u1",), (None, -(-shape.candidates // SCAN_BLOCK) * SCAN_BLOCK)
        )
        arrays |= {
            f"{name}.npy": ArraySpec(("<f8",), size)
            for name, size in zip(PREFIX_ARRAYS[1:], columns[1:], strict=True)
        }
    if any(f"{name}.npy" in present for name in IVF_ARRAYS):
        arrays["list_starts.npy"] = ArraySpec(("<i8",), (None,))
        arrays["list_centres.npy"] = ArraySpec(("<f4",), (None, shape.d + shape.r + 2))
    if "user_rows.npy" in present or "users.bytes.npy" in present:
        arrays["user_rows.npy"] = ArraySpec(("<f4",), (None, shape.d + shape.r))
        arrays["user_wide_indptr.npy"] = ArraySpec(("<i8",), (None,))
        arrays["user_wide_columns.npy"] = ArraySpec(("<i4",), (None,))
        arrays["user_wide_values.npy"] = ArraySpec(("<f4",), (None,))
        arrays.update(string_arrays("users", None))
    return arrays


def string_arrays(name: str, n: int | None) -> dict[str, ArraySpec]:
    """Return the arrays of string table ``name`` with n strings, and of its index if it has one."""
    arrays = {
        f"{name}.bytes.npy": ArraySpec(("|u1",), (None,)),
        f"{name}.offsets.npy": ArraySpec(("<i8",), (None if n is None else n + 1,)),
    }
    if name in INDEXED:
        arrays[f"{name}.buckets.npy"] = ArraySpec(("<i4",), (None,))
        arrays[f"{name}.rows.npy"] = ArraySpec(("<i4",), (n,))
        arrays[f"{name}.hashes.npy"] = ArraySpec(("<u4",), (n,))
    return arrays
