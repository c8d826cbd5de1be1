"""Parse a column of times without pandas.

``data/parse.py`` follows the same rules with pandas, which is faster on large tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import copysign, isfinite, isnan, nan
from statistics import median

from tlrec_edge.errors import DataError

EARLIEST, LATEST = 0, 4_102_444_800
"""The valid range of a time in seconds: from 1970 up to, but not including, 2100."""
EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""A limit and a divisor each: if the median number exceeds the limit, dividing it gives seconds.

The limits separate ns, us and ms.
"""
DAYS = r"(19|20)\d{6}"
"""A date as eight digits. It has to be tested first, because it looks like an epoch."""
DAY_FORMATS = (
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%Y年%m月%d日",
    "%m/%d/%y",
    "%d/%m/%y",
)
CLOCK_FORMATS = ("", " %H:%M", " %H:%M:%S")
_SAMPLE = 5000
_ISO = re.compile(r"(\d{4})(?:([-/]?)(\d\d)\2(\d\d)([T ].*)?|-(\d\d))")


def read_times(column: Iterable[str]) -> Mapping[str, float]:
    """Return the seconds since 1970 of each distinct text in a column, NaN if it is not a time.

    Seconds are integers, and a time without a zone is UTC. The column as a whole decides the
    format: eight digits, ISO 8601, a common day format, or epochs in s, ms, us or ns. A result
    before EARLIEST or from LATEST on is out of range.

    Raises DataError if the column does not show which number is the day and which the month.
    """
    texts = list(dict.fromkeys(column))
    return dict(zip(texts, _parse([text.strip() for text in texts]), strict=True))


def ambiguous(example: str, formats: Sequence[str]) -> DataError:
    """Return the error for a column that matches several day formats."""
    return DataError(
        f"time {example!r} fits both {formats[0]!r} and {formats[1]!r}; set time_format to one of "
        "them in the [clean] section of a schema, or write times in ISO 8601"
    )


def _parse(texts: list[str]) -> list[float]:
    if all(re.fullmatch(DAYS, text) for text in texts):
        return _read_all(texts, _reader("%Y%m%d"))
    numbers = [_number(text) for text in texts]
    magnitudes = [abs(number) for number in numbers if not isnan(number)]
    if len(magnitudes) > len(texts) / 2:
        size = median(magnitudes)
        divisor = next((divisor for limit, divisor in EPOCHS if size > limit), 1.0)
        return [_truncate(number / divisor) for number in numbers]
    iso = _read_all(texts, _read_iso)
    return iso if _count_valid(iso) > len(texts) / 2 else _by_day_format(texts, iso)


def _by_day_format(texts: list[str], iso: list[float]) -> list[float]:
    """Read the texts in the day format that fits most of them, or as ISO 8601 if none fits more."""
    sample = texts[:: max(1, len(texts) // _SAMPLE)]
    formats = [day + clock for day in DAY_FORMATS for clock in CLOCK_FORMATS]
    valid = {form: _count_valid(_read_all(sample, _reader(form))) for form in formats}
    most = max(valid.values(), default=0)
    if most <= _count_valid(iso):
        return iso
    best = [form for form, count in valid.items() if count == most]
    if len(best) > 1:
        raise ambiguous(sample[0], best)
    return _read_all(texts, _reader(best[0]))


def _read_iso(text: str) -> datetime:
    """Read ISO 8601, also with slashes or without a day.

    Only calendar dates are read: Python's own reader also takes weeks, which pandas does not.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, _, month, day, clock, month_alone = match.groups()
    return datetime.fromisoformat(f"{year}-{month or month_alone}-{day or '01'}{clock or ''}")


def _reader(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)


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
