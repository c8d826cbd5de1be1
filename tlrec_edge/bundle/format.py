"""Bundle format 1: file names, and the manifest entries that arrays and scores depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.bundle.ids import is_user_key
from tlrec_edge.bundle.manifest_values import integer, number, pair
from tlrec_edge.core.packing import ROW_KINDS, RowFormat
from tlrec_edge.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_CHECKSUM = "manifest.sha256"
"""The SHA-256 of the manifest. Bundles of older versions don't have it."""
MAX_MANIFEST_BYTES = 16 << 20
ENCODER = "encoder.onnx"
ITEM_TOWER = "item_tower.onnx"
FEATURES = "features.json"
SCHEMA = "schema.json"
"""How the tables of the training were read; bundles of 0.1 have none."""
TEXT_TABLE = "text_table.npy"
CANDIDATE_TEXT = "candidate_text.npy"
PREFIX_SCAN = "head_scan.onnx"
BLOBS = (ENCODER, ITEM_TOWER, FEATURES, SCHEMA, PREFIX_SCAN)
"""Files that are not arrays."""
SCAN_BLOCK = 128
"""Candidates per block of the prefix scan; their number is padded to a multiple of it."""
REMEDY = "copy or export the bundle again"
"""The end of every message about a damaged bundle."""

WIDE_KINDS = ("float32", "int8")
"""Storage formats of the item-item weights; int8 has one scale per history row."""
UNIFORM_KINDS = ("int8", "float32")
"""Formats that ``tables`` may name once for all tables; scales and weights are then float32."""
MAX_UINT16_COLUMNS = 65_536
"""Largest number of candidates for which the column indices of int8 weights are uint16."""
MAX_MAGNITUDE = 1e12
"""Largest float in a bundle; sums of products of any two stay finite in float32."""

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
"""Attributes of ``ModelShape`` and their keys in the manifest's ``model`` section."""


@dataclass(frozen=True)
class Storage:
    """The storage format of each table: the manifest's ``tables``.

    The manifest holds either one of ``UNIFORM_KINDS`` for all tables, as bundles of 0.1 do, or an
    object with a key for each attribute. If it is an object, the manifest's ``weights`` holds the
    weights of the parts of a score; otherwise the scales of each table include them. Scales that
    include a weight must be float32, the others may be float16.

    Raises ValueError if a format is not valid for its table.
    """

    history: str
    """history_rows.npy"""
    candidate: str
    """The two-tower columns of candidate_rows.npy."""
    taste_in: str
    """taste_rows.npy, the history side of the low-rank residual."""
    taste: str
    """The low-rank columns of candidate_rows.npy."""
    wide: str = "float32"
    """The item-item weights."""

    def __post_init__(self) -> None:
        for name, kind in vars(self).items():
            valid = WIDE_KINDS if name == "wide" else ROW_KINDS
            if kind not in valid:
                raise ValueError(
                    f"tables: {name} = {kind!r:.40}, expected one of {', '.join(valid)}"
                )
        # Raises ValueError if the two can't be stored in one row.
        RowFormat((self.candidate, 0), (self.taste, 0))

    @classmethod
    def from_entry(cls, entry: Any) -> Storage:
        """Read the manifest's ``tables``. Raises ValueError if it is not valid."""
        if isinstance(entry, Mapping):
            for name in entry.keys() ^ cls.__dataclass_fields__.keys():
                problem = "not known" if name in entry else "missing"
                raise ValueError(f"tables: {name!r:.40} is {problem}")
            return cls(**entry)
        if entry not in UNIFORM_KINDS:
            raise ValueError(
                f"tables = {entry!r:.40}, expected one of {', '.join(UNIFORM_KINDS)}, "
                "or an object with the format of each table"
            )
        return cls(entry, entry, entry, entry)

    @property
    def entry(self) -> str | dict[str, str]:
        """The manifest's ``tables``: a string if one format is enough, else an object."""
        return self.history if self.uniform else dict(vars(self))

    @property
    def uniform(self) -> bool:
        """Whether one format for all tables describes this storage."""
        return self.history in UNIFORM_KINDS and self == Storage.from_entry(self.history)

    def __str__(self) -> str:
        rows = {self.history, self.candidate, self.taste_in, self.taste}
        if len(rows) > 1:
            return ", ".join(f"{name} {kind}" for name, kind in vars(self).items())
        return self.history if self.wide == "float32" else f"{self.history}, wide {self.wide}"


@dataclass(frozen=True)
class ModelShape:
    """The sizes that all arrays of a bundle must agree with: the manifest's ``model``.

    Raises ValueError if the sizes contradict one another.
    """

    d: int
    """Width of the two-tower vectors."""
    r: int
    """Number of low-rank columns, also called the interest block."""
    length: int
    """Number of history items that the encoder reads."""
    items: int
    candidates: int
    """Number of items that can be recommended. They come first; others are only in histories."""
    group_columns: int
    """Number of categorical columns."""
    groups: int
    """Number of distinct values of these columns together."""
    pad: float
    """Attention bias of a padding position."""
    max_history: int
    """Number of history items that are used at all."""
    tables: Storage
    low_rank_width: int | None = None
    """Width of taste_rows.npy; None if the manifest does not give it."""

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
            raise ValueError(f"{self.candidates} candidates, but only {self.items} items")
        if not 0 <= (self.low_rank_width or 0) <= self.r:
            raise ValueError(
                f"taste = {self.low_rank_width}, expected 0..{self.r} columns of taste_rows.npy"
            )

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> ModelShape:
        """Read the ``model`` section. Raises BundleError if an entry is missing or not valid."""
        try:
            model = manifest["model"]
            sizes = {field: integer(key, model[key]) for field, key in _SIZES.items()}
            tables = Storage.from_entry(manifest["tables"])
            low_rank_width = None if tables.uniform else integer("taste", model["taste"])
            pad = number("pad", model["pad"])
            return cls(**sizes, pad=pad, tables=tables, low_rank_width=low_rank_width)
        except KeyError as error:
            raise _missing_entry(error) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(
                f"{MANIFEST} has an invalid model section: {error}; export the bundle again"
            ) from error

    @cached_property
    def history_format(self) -> RowFormat:
        """Row format of history_rows.npy."""
        return RowFormat((self.tables.history, self.d))

    @cached_property
    def candidate_format(self) -> RowFormat:
        """Row format of candidate_rows.npy: two-tower columns, then low-rank columns."""
        return RowFormat((self.tables.candidate, self.d), (self.tables.taste, self.r))

    def low_rank_format(self, width: int) -> RowFormat:
        """Return the row format of taste_rows.npy."""
        return RowFormat((self.tables.taste_in, width))

    @property
    def scale_dtypes(self) -> tuple[str, ...]:
        """The dtypes that scales may have."""
        return ("<f4",) if self.tables.uniform else ("<f4", "<f2")

    @property
    def column_dtype(self) -> str:
        """The dtype of the columns of item-item weights."""
        return column_dtype(self.candidates).str if self.tables.wide == "int8" else "<i4"


class ScoreWeights(NamedTuple):
    """The weight of each part of a score; 1 if the scales of its table include the weight."""

    deep: float = 1.0
    """The two-tower score."""
    wide: float = 1.0
    """The item-item weights."""
    low_rank: float = 1.0
    """The low-rank residual, taste_rows.npy."""


@dataclass(frozen=True)
class Scoring:
    """How user vectors are rounded, and the constants of a score."""

    scale: tuple[float, float]
    """Rounding step of the two-tower block and of the interest block, powers of two."""
    limit: tuple[int, int]
    """Largest integer of each block after rounding."""
    unknown_score: float
    """Score of an item that the bundle does not have."""
    weights: ScoreWeights
    repeat_bias: float
    """Added to the score of an item that the user already has."""

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], shape: ModelShape) -> Scoring:
        """Read and check all entries that scores depend on.

        Raises BundleError if an entry is missing or not valid.
        """
        try:
            scoring = cls._read(manifest, shape)
            scoring._check(shape)
            _check_user_ids(manifest)
        except KeyError as error:
            raise _missing_entry(error) from error
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise BundleError(
                f"{MANIFEST} has an invalid entry: {error}; export the bundle again"
            ) from error
        return scoring

    @classmethod
    def _read(cls, manifest: Mapping[str, Any], shape: ModelShape) -> Scoring:
        scale, limit = (pair(name, manifest[name]) for name in ("user_scale", "user_limit"))
        unknown_score = number("unknown_score", manifest["unknown_score"])
        weights = ScoreWeights()
        if not shape.tables.uniform:
            entry = manifest["weights"]
            weights = ScoreWeights(*(number(key, entry[key]) for key in ("deep", "wide", "rest")))
        return cls(
            (number("user_scale", scale[0]), number("user_scale", scale[1])),
            (integer("user_limit", limit[0]), integer("user_limit", limit[1])),
            unknown_score,
            weights,
            number("repeat", manifest.get("repeat", 0.0)),  # older bundles don't have this entry
        )

    def _check(self, shape: ModelShape) -> None:
        if not abs(self.unknown_score) <= MAX_MAGNITUDE:
            raise ValueError(f"unknown_score = {self.unknown_score}")
        if not abs(self.repeat_bias) <= MAX_MAGNITUDE:
            raise ValueError(f"repeat = {self.repeat_bias}")
        for weight in (*self.weights, self.weights.deep * self.scale[0]):
            if not abs(weight) <= MAX_MAGNITUDE:
                raise ValueError(f"weights = {tuple(self.weights)}")
        _check_rounding("deep", self.scale[0], self.limit[0], shape.d)
        _check_rounding("interest", self.scale[1], self.limit[1], shape.r)


def _check_rounding(block: str, scale: float, limit: int, width: int) -> None:
    """Raise ValueError if scores of the block would not be exact in float32.

    A power of two as the step makes scaling exact; the limit keeps every partial sum of a dot
    product an integer below 2**24 (see ``rowwise.exact_limit``).
    """
    if not 2.0**-100 <= scale <= MAX_MAGNITUDE or math.frexp(scale)[0] != 0.5:
        raise ValueError(
            f"user_scale {scale} of the {block} block is not a power of two "
            f"in 2**-100..{MAX_MAGNITUDE:g}"
        )
    if limit < 1 or 127 * limit * width >= 2**24:
        raise ValueError(
            f"user_limit {limit} of the {block} block is outside 1..(2**24 - 1) / (127 * {width})"
        )


def _check_user_ids(manifest: Mapping[str, Any]) -> None:
    user_ids = manifest["user_ids"]
    if user_ids not in (None, "hashed", "plain"):
        raise ValueError(f"user_ids = {user_ids!r}, expected null, 'hashed' or 'plain'")
    if user_ids != "hashed":
        return
    if manifest["user_key"] is not None:
        if not is_user_key(manifest["user_key"]):
            raise ValueError("user_key is not a key of 16 to 64 bytes in hex")
    elif not isinstance(manifest["user_key_check"], str):
        raise ValueError(f"user_key_check = {manifest['user_key_check']!r:.40}, expected a string")


def _missing_entry(error: KeyError) -> BundleError:
    return BundleError(f"{MANIFEST} has no entry {error}; export the bundle again")


def column_dtype(candidates: int) -> np.dtype[Any]:
    """Return the dtype of the columns of int8 weights."""
    return np.dtype("<u2" if candidates <= MAX_UINT16_COLUMNS else "<i4")
