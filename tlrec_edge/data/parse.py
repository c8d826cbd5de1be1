"""Columns of text to arrays: ids, categories, numbers, times; unreadable values are marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tlrec_edge.tabular.times import (
    CLOCK_FORMATS,
    DAY_FORMATS,
    DAYS,
    EARLIEST,
    EPOCHS,
    LATEST,
    ambiguous,
)
from tlrec_edge.types import Bools, Doubles, Longs

_FLOAT_ID = re.compile(r"-?\d+\.0+")
_INTEGER = re.compile(r"-?\d{1,18}")
_MISSING_NUMBER = (
    "nan",
    "inf",
    "-inf",
    "+inf",
    "infinity",
    "-infinity",
    "null",
    "none",
    "na",
    "n/a",
    "-",
)


class CodedColumn(NamedTuple):
    """A column of names: ``names[codes[i]]`` is the value of row i; code -1 is a missing value."""

    codes: Longs
    names: list[str]


class Numbers(NamedTuple):
    """Numbers, NaN if missing; ``invalid`` marks cells with anything but a finite number."""

    values: Doubles
    invalid: Bools


class Times(NamedTuple):
    """Seconds since 1970, 0 for those that are invalid or out of range; UTC if no zone is given."""

    seconds: Longs
    invalid: Bools
    out_of_range: Bools


def read_ids(column: pd.Series[Any]) -> CodedColumn:
    """Read ids as strings, as they are written; blank ones are missing.

    If all ids look like "17850.0" (integers that were stored as floats), they become "17850".
    """
    codes, values = pd.factorize(column)
    names = [
        "" if isinstance(value, float) and not np.isfinite(value) else _as_text(value)
        for value in values
    ]
    present = [name for name in names if name.strip()]
    if present and all(_FLOAT_ID.fullmatch(name) for name in present):
        names = [name.split(".")[0] for name in names]
    return merge_duplicates(np.asarray(codes, np.int64), names)


def read_categories(column: pd.Series[Any]) -> CodedColumn:
    """Read categories: as ids, without surrounding spaces."""
    labels = read_ids(column)
    return merge_duplicates(labels.codes, [name.strip() for name in labels.names])


def sort_ids(names: Sequence[str]) -> Longs:
    """Return the order of ids: as numbers if all are integers, else as strings."""
    if all(_INTEGER.fullmatch(name) for name in names):
        return np.array(
            sorted(range(len(names)), key=lambda i: (int(names[i]), names[i])), np.int64
        )
    return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)


def read_numbers(column: pd.Series[Any]) -> Numbers:
    """Read numbers; NaN, infinity and other text are marked invalid, empty cells are missing."""
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        present = ~np.isnan(values)
    else:
        text = column.astype("str").str.strip()
        present = (column.notna() & (text != "")).to_numpy(bool)
        values = pd.to_numeric(text, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    finite = np.isfinite(values)
    return Numbers(np.where(finite, values, np.nan), present & ~finite)


def count_numbers(column: pd.Series[Any]) -> int:
    """Count the cells that are numbers, or words for a missing number (nan, inf, null)."""
    numbers = read_numbers(column)
    words = column.astype("str").str.strip().str.lower().isin(_MISSING_NUMBER).to_numpy(bool)
    return int((np.isfinite(numbers.values) | words).sum())


def read_times(column: pd.Series[Any], time_format: str = "") -> Times:
    """Read times: ISO 8601, common date formats, or epochs in s, ms, us or ns (by their size).

    ``time_format`` is a format of ``strptime`` for other notations. Raises DataError if it is
    ambiguous which number is the day and which the month.
    """
    codes, values = pd.factorize(column)
    stamps = _parse_times(pd.Series(values), time_format)  # each distinct value is parsed once
    invalid = stamps.isna().to_numpy(bool)
    seconds = np.where(invalid, 0, stamps.to_numpy().astype("datetime64[s]").astype(np.int64))
    out = ~invalid & ((seconds < EARLIEST) | (seconds >= LATEST))
    seconds = np.where(out, 0, seconds)
    missing = codes < 0
    if not len(values):
        return Times(np.zeros(len(codes), np.int64), missing, np.zeros(len(codes), bool))
    return Times(
        np.where(missing, 0, seconds[codes]), missing | invalid[codes], ~missing & out[codes]
    )


def _parse_times(values: pd.Series[Any], time_format: str) -> pd.Series[Any]:
    if pd.api.types.is_datetime64_any_dtype(values):
        return values.dt.tz_convert(None) if values.dt.tz is not None else values
    if time_format:
        return _to_datetime(values.astype("str"), format=time_format)
    if pd.api.types.is_numeric_dtype(values):
        return _from_epoch(values.astype("float64"))
    text = values.astype("str").str.strip()
    if text.str.fullmatch(DAYS).all():
        return _to_datetime(text, format="%Y%m%d")
    numbers = pd.to_numeric(text, errors="coerce")
    if numbers.notna().mean() > 0.5:
        return _from_epoch(numbers.astype("float64"))
    stamps = _to_datetime(text, format="ISO8601")
    return stamps if stamps.notna().mean() > 0.5 else _by_day_format(text, stamps)


def _from_epoch(numbers: pd.Series[Any]) -> pd.Series[Any]:
    size = numbers.abs().median()
    divisor = next((d for limit, d in EPOCHS if size > limit), 1.0)
    seconds = numbers / divisor
    # A time far out of range is clipped, not dropped: it is counted as out of range later, and
    # must not overflow here.
    clipped = seconds.where(seconds.abs() < 1e12, np.sign(seconds) * 1e12).where(
        np.isfinite(seconds)
    )
    whole = clipped.fillna(0).astype("int64").to_numpy().astype("datetime64[s]")
    return pd.Series(whole).where(clipped.notna().to_numpy())


def _by_day_format(text: pd.Series[Any], iso: pd.Series[Any]) -> pd.Series[Any]:
    sample = text.iloc[:: max(1, len(text) // 5000)]
    n_parsed: dict[str, int] = {}
    for day in DAY_FORMATS:
        for clock in CLOCK_FORMATS:
            n_parsed[day + clock] = int(_to_datetime(sample, format=day + clock).notna().sum())
    best = max(n_parsed.values())
    if best <= int(iso.notna().sum()):
        return iso
    winners = [fmt for fmt, count in n_parsed.items() if count == best]
    if len(winners) > 1:
        raise ambiguous(str(sample.iloc[0]), winners)
    return _to_datetime(text, format=winners[0])


def _to_datetime(text: pd.Series[Any], format: str) -> pd.Series[Any]:
    stamps = pd.to_datetime(text, format=format, errors="coerce", utc=True)
    return stamps.dt.tz_convert(None)


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def merge_duplicates(codes: Longs, names: list[str]) -> CodedColumn:
    """Return the column with one code for equal names, and code -1 for blank ones."""
    seen: dict[str, int] = {}
    renumber = np.array(
        [seen.setdefault(name, len(seen)) if name.strip() else -1 for name in names] + [-1],
        np.int64,
    )
    return CodedColumn(renumber[codes], list(seen))  # the last entry is for code -1
