"""Parse a column of times.

The column as a whole decides how it is written; ``TimeReading`` says what was decided, so that a
user can check it. Numbers are epochs only if that gives plausible times:

- 8, 10, 12 or 14 digits that are calendar dates (20240131, 202401311345) are dates;
- numbers that would be a few hours of 1970, but are days of a spreadsheet, are those days;
- the size of each number shows its unit: seconds, milliseconds, microseconds or nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import copysign, isfinite, isnan, nan
from statistics import median
from typing import NamedTuple

import numpy as np

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import Column, column_of
from tlrec_edge.types import Bools, Longs

EARLIEST, LATEST = 0, 4_102_444_800
"""The valid range of a time in seconds: from 1970 up to, but not including, 2100."""
PLAUSIBLE = 94_694_400
"""Seconds up to 1973: smaller numbers may be steps or days, which only give an order."""
EPOCH, SPREADSHEET = "epoch", "spreadsheet"
"""Names of two forms of numbers, as a ``time_format``."""
_EPOCHS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))
"""A limit, a divisor and a unit: a number above the limit, divided, gives seconds."""
_SPREADSHEET_DAYS = (29_221.0, 58_440.0)
"""Days of a spreadsheet from 1980 to 2060. As seconds they are all in the first day of 1970."""
_EPOCH_IN_SPREADSHEET_DAYS = 25_569
_DIGIT_FORMATS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_MIN_DATES = 0.9
"""Share of the texts that must be such dates; the others are words for a missing time."""
_DIGITS = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{2}){0,3}")
DAY_FORMATS = (
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y年%m月%d日",
    "%Y.%m.%d",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d.%m.%y",
    "%y/%m/%d",
    "%y.%m.%d",
)
_MONTH_NAMES = (
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %B %Y",
    "%a %b %d %Y",
)
CLOCK_FORMATS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_FORMATS = tuple(day + clock for day in DAY_FORMATS + _MONTH_NAMES for clock in CLOCK_FORMATS)
_MANY_YEARS = 3
"""Times as many years as another reading of the same dates: those years are days of a month."""
_YEAR = 31_556_952
_SAMPLE, _FEW = 5000, 200
"""Texts from which a format is found, and that show whether a column has dates."""
_ISO = re.compile(
    r"(\d{4})(?:([-/]?)(\d\d)\2(\d\d)|-(\d\d)|-(\d\d?)-(\d\d?))(?:[T ](.*))?", re.DOTALL
)
_PLAIN_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?")
_CLOCK = re.compile(r"(\d{1,2})(.*)")
_ZONE_NAME = re.compile(r"\s*(?:UTC|GMT)$")
_SPACED_ZONE = re.compile(r"\s+([+-]\d\d:?\d\d)$")
_TIME_OF_DAY = re.compile(
    r"([01]?\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d)(?:\.\d+)?)?)?(?:\s*([AaPp])[Mm])?"
)


class Times(NamedTuple):
    """Seconds since 1970, 0 for those that are invalid or out of range; UTC if no zone is given."""

    seconds: Longs
    invalid: Bools
    out_of_range: Bools


@dataclass(frozen=True)
class TimeReading:
    """How a column of times was read.

    Attributes:
        form: such as "ISO 8601", "epochs in seconds", or a format of ``strptime``.
        note: what looks odd about it, "" if nothing does.
        unreadable: the first text that is not a time, None if there is none.
    """

    form: str
    note: str = ""
    unreadable: str | None = None

    @property
    def time_format(self) -> str:
        """What reads another column of the same kind, "" if its own texts show how.

        A short column may not show which number is the day, or that small numbers are steps and not
        days of a spreadsheet.
        """
        if self.form.startswith("epochs"):
            return EPOCH
        if self.form.startswith("spreadsheet"):
            return SPREADSHEET
        return self.form if self.form.startswith("%") and " or " not in self.form else ""


def read_times(
    column: Column, time_format: str = "", strict: bool = True
) -> tuple[Times, TimeReading]:
    """Read a column of times.

    Args:
        column: the texts.
        time_format: a format of ``strptime``, "epoch" or "spreadsheet"; "" finds how the column is
            written.
        strict: whether texts of another form are invalid. If not, ``time_format`` is how another
            column was written: it is used if it reads most of the texts.

    Returns:
        The times, and how they were read.

    Raises:
        DataError: if the column does not show which number is the day and which the month.
    """
    seconds, reading = parse_times(column.names, time_format, strict)
    values = np.array([*seconds, nan])[column.codes]  # the last entry is for code -1
    invalid = np.isnan(values)
    with np.errstate(invalid="ignore"):
        out_of_range = ~invalid & ~((values >= EARLIEST) & (values < LATEST))
    usable = ~invalid & ~out_of_range
    return Times(np.where(usable, values, 0).astype(np.int64), invalid, out_of_range), reading


def parse_times(
    texts: Sequence[str], time_format: str = "", strict: bool = True
) -> tuple[list[float], TimeReading]:
    """Return the seconds since 1970 of each distinct text, NaN if it is not a time.

    Seconds are integers, and a time without a zone is UTC. Raises DataError as ``read_times``.
    """
    stripped = [text.strip() for text in texts]
    present = list(dict.fromkeys(filter(None, stripped)))
    seconds, form, note = _parse(present, time_format, strict)
    of_text = dict(zip(present, seconds, strict=True))
    unreadable = next((text for text in present if isnan(of_text[text])), None)
    early = next((text for text in present if EARLIEST <= of_text[text] < PLAUSIBLE), None)
    if early is not None and not note:
        note = f"some are before 1973, such as {early!r:.60}; do they mean that it is not known?"
    return [of_text.get(text, nan) for text in stripped], TimeReading(form, note, unreadable)


def looks_like_dates(column: Column) -> bool:
    """Return whether nearly all texts of a column are calendar dates; numbers are not."""
    sample = [text.strip() for text in column.names[:_FEW]]
    if not sample or sum(not isnan(_number(text)) for text in sample) > len(sample) / 10:
        return bool(sample) and all(map(_DIGITS.fullmatch, sample))
    seconds = _read_all(sample, _read_iso)
    most = max([_count_valid(seconds), *_count_formats(sample).values()])
    return most >= 0.9 * len(sample)


def looks_like_clock(column: Column) -> bool:
    """Return whether every text of a column is a time of day: 13, 1:05, 13:05:59, 1305."""
    return bool(column.names) and all(_TIME_OF_DAY.fullmatch(t.strip()) for t in column.names)


def join_clock(dates: Column, clock: Column) -> Column:
    """Return a column of dates with the time of day of another column, midnight if it has none."""
    days, hours = dates.texts(), map(_clock_text, clock.texts())
    return column_of(
        [f"{day.strip()} {hour}".strip() for day, hour in zip(days, hours, strict=True)]
    )


def _clock_text(text: str) -> str:
    """Return a time of day as HH:MM:SS, midnight if it is not known."""
    match = _TIME_OF_DAY.fullmatch(text.strip())
    hours, minutes, seconds, half = match.groups() if match else (None,) * 4
    hour = int(hours or 0)
    if half:
        hour = hour % 12 + (12 if half in "Pp" else 0)
    return f"{hour:02}:{minutes or '00'}:{seconds or '00'}"


def ambiguous(example: str, formats: Sequence[str]) -> DataError:
    """Return the error for a column that matches several day formats."""
    return DataError(
        f"time {example!r} fits both {formats[0]!r} and {formats[1]!r}; set time_format to one of "
        "them in the [clean] section of a schema, or write times in ISO 8601"
    )


_Found = tuple[list[float], str, str]
"""The seconds of each text, how they were read, and what looks odd."""


def _parse(texts: Sequence[str], time_format: str, strict: bool) -> _Found:
    if time_format:
        found = _by_name(texts, time_format)
        if strict or _count_valid(found[0]) > len(texts) / 2:
            return found
    return _by_digits(texts) or _by_numbers(texts) or _by_iso(texts) or _by_format(texts)


def _by_name(texts: Sequence[str], time_format: str) -> _Found:
    """Read texts in a form that is known; see ``TimeReading.time_format``."""
    if time_format == EPOCH:
        return _from_epochs([_number(text) for text in texts])
    if time_format == SPREADSHEET:
        return _from_spreadsheet([_number(text) for text in texts])
    return _read_all(texts, _reader(time_format)), time_format, ""


def _by_digits(texts: Sequence[str]) -> _Found | None:
    """Read dates that are written as 8, 12 or 14 digits, which look like epochs."""
    dates = [text for text in texts if _DIGITS.fullmatch(text)]
    if not dates or len(dates) < _MIN_DATES * len(texts):
        return None
    lengths = sorted(set(map(len, dates)))
    seconds = _read_all(texts, _read_digits)
    if lengths != [8] and _count_valid(seconds) < len(dates):
        return None
    return seconds, " or ".join(_DIGIT_FORMATS[length] for length in lengths), ""


def _read_digits(text: str) -> datetime:
    return datetime.strptime(text, _DIGIT_FORMATS.get(len(text), "%Y%m%d"))


def _by_numbers(texts: Sequence[str]) -> _Found | None:
    numbers = [_number(text) for text in texts]
    sizes = [abs(number) for number in numbers if not isnan(number)]
    if len(sizes) <= len(texts) / 2:
        return None
    first, last = _SPREADSHEET_DAYS
    if all(first <= size < last for size in sizes):
        return _from_spreadsheet(numbers)
    return _from_epochs(numbers)


def _from_spreadsheet(numbers: Sequence[float]) -> _Found:
    seconds = ((number - _EPOCH_IN_SPREADSHEET_DAYS) * 86_400 for number in numbers)
    # A day's fraction is rounded, because 13:40:48 is stored as .56999999999971.
    return [_truncate(round(s, 3) if isfinite(s) else s) for s in seconds], "spreadsheet days", ""


def _from_epochs(numbers: Sequence[float]) -> _Found:
    sizes = [abs(number) for number in numbers if not isnan(number)]
    if not sizes:
        return [nan] * len(numbers), "epochs", ""
    units = [_unit(size) for size in sizes]
    times = [size / divisor for size, (divisor, _) in zip(sizes, units, strict=True)]
    names = list(dict.fromkeys(name for _, name in units))
    if len(names) > 1 and all(PLAUSIBLE <= time < LATEST for time in times):
        seconds = [_truncate(n if isnan(n) else n / _unit(abs(n))[0]) for n in numbers]
        return seconds, f"epochs in {' and '.join(names)}", "its units differ from row to row"
    divisor, name = _unit(median(sizes))
    seconds = [_truncate(number / divisor) for number in numbers]
    note = ""
    if max(sizes) / divisor < PLAUSIBLE:
        note = "they are before 1973, so they are an order only: no half-lives are tried"
    return seconds, f"epochs in {name}", note


def _unit(size: float) -> tuple[float, str]:
    return next(((d, name) for limit, d, name in _EPOCHS if size > limit), (1.0, "seconds"))


def _by_iso(texts: Sequence[str]) -> _Found | None:
    seconds = _read_plain_iso(texts) or _read_all(texts, _read_iso)
    return (seconds, "ISO 8601", "") if _count_valid(seconds) > len(texts) / 2 else None


def _read_plain_iso(texts: Sequence[str]) -> list[float] | None:
    """Read texts that all have the most common form, by numpy, which is ten times as fast."""
    if not all(map(_PLAIN_ISO.fullmatch, texts)):
        return None
    try:
        moments = np.array(texts, "datetime64[s]")
    except ValueError:  # not a calendar date
        return None
    seconds: list[float] = moments.astype(np.float64).tolist()
    return seconds


def _by_format(texts: Sequence[str]) -> _Found:
    """Read the texts in the format that fits most of them, or as ISO 8601 if none fits more."""
    iso = _read_all(texts, _read_iso)
    sample = texts[:: max(1, len(texts) // _SAMPLE)]
    valid = _count_formats(sample)
    most = max(valid.values(), default=0)
    if most <= _count_valid(iso):
        return iso, "ISO 8601", ""
    best = _best_format(sample, [form for form, count in valid.items() if count == most])
    return _read_all(texts, _reader(best)), best, ""


def _best_format(sample: Sequence[str], forms: Sequence[str]) -> str:
    """Return the one of several formats, which read the same texts, that is certain.

    24/01/31 may be a day of 2024 or of 2031: the reading with far fewer years is right.
    """
    readings: dict[tuple[float, ...], str] = {}
    for form in forms:
        readings.setdefault(tuple(_read_all(sample, _reader(form))), form)
    by_years = sorted(readings, key=_count_years)
    if len(by_years) > 1 and _count_years(by_years[1]) < _MANY_YEARS * _count_years(by_years[0]):
        raise ambiguous(sample[0], [readings[reading] for reading in by_years])
    return readings[by_years[0]]


def _count_years(seconds: Sequence[float]) -> int:
    return len({value // _YEAR for value in seconds if not isnan(value)})


def _count_formats(sample: Sequence[str]) -> dict[str, int]:
    return {form: _count_valid(_read_all(sample, _reader(form))) for form in _FORMATS}


def _read_iso(text: str) -> datetime:
    """Read ISO 8601, also with slashes, one-digit months and days, or without a day.

    Only calendar dates are read: Python's own reader also takes weeks.
    """
    text = _SPACED_ZONE.sub(r"\1", _ZONE_NAME.sub("+00:00", text))
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, _, month, day, month_alone, short_month, short_day, clock = match.groups()
    month, day = month or month_alone or f"{short_month:0>2}", day or f"{short_day or '01':0>2}"
    if clock and (hour := _CLOCK.fullmatch(clock)):
        clock = f"{hour[1]:0>2}{hour[2]}"
    return datetime.fromisoformat(f"{year}-{month}-{day}" + (f"T{clock}" if clock else ""))


def _reader(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(_ZONE_NAME.sub("", text), form)


def _read_all(texts: Sequence[str], read: Callable[[str], datetime]) -> list[float]:
    return [_seconds(text, read) for text in texts]


def _seconds(text: str, read: Callable[[str], datetime]) -> float:
    try:
        moment = read(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return float(moment.timestamp() // 1)
    except (ValueError, OverflowError):
        return nan


def _count_valid(seconds: Sequence[float]) -> int:
    return sum(not isnan(value) for value in seconds)


def _number(text: str) -> float:
    try:
        return nan if "_" in text else float(text)  # float() would read 1_000
    except ValueError:
        return nan


def _truncate(seconds: float) -> float:
    """Drop fractions of a second; infinity becomes NaN, other huge numbers stay out of range."""
    if not isfinite(seconds):
        return nan
    return float(int(seconds)) if abs(seconds) < 1e12 else copysign(1e12, seconds)
