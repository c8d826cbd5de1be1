"""How a column of times is read, without pandas; ``data/parse.py`` reads it by the same rules, faster on large data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import copysign, isfinite, isnan, nan
from statistics import median

from tlrec_edge.errors import DataError

EARLIEST, LATEST = 0, 4_102_444_800  # 1970 and 2100
EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""A column whose numbers are larger than the first is in ns, us or ms: divide by the second."""
DAYS = r"(19|20)\d{6}"
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
    """Return the whole seconds since 1970 (UTC where no zone is given) of each distinct text, NaN where it is no time.

    The whole column tells its form: dates, ISO 8601, a common day format, or epochs in s, ms, us or ns. A time before
    EARLIEST or from LATEST on is out of range. Raises DataError where day and month cannot be told apart.
    """
    texts = list(dict.fromkeys(column))
    return dict(zip(texts, _parse([text.strip() for text in texts]), strict=True))


def ambiguous(example: str, formats: Sequence[str]) -> DataError:
    """Return the error for a column that fits several day formats."""
    return DataError(
        f"time {example!r} fits both {formats[0]!r} and {formats[1]!r}; "
        f'set time_format = "{formats[0]}" or the other in [clean] of a schema, or write ISO 8601'
    )


def _parse(texts: list[str]) -> list[float]:
    if all(re.fullmatch(DAYS, text) for text in texts):
        return _each(texts, lambda text: datetime.strptime(text, "%Y%m%d"))
    numbers = [_number(text) for text in texts]
    known = [abs(number) for number in numbers if not isnan(number)]
    if len(known) > len(texts) / 2:
        size = median(known)
        divisor = next((divisor for limit, divisor in EPOCHS if size > limit), 1.0)
        return [_whole(number / divisor) for number in numbers]
    iso = _each(texts, _iso)
    return iso if _found(iso) > len(texts) / 2 else _by_day_format(texts, iso)


def _by_day_format(texts: list[str], iso: list[float]) -> list[float]:
    sample = texts[:: max(1, len(texts) // _SAMPLE)]
    found = {
        day + clock: _found(_each(sample, _reader(day + clock)))
        for day in DAY_FORMATS
        for clock in CLOCK_FORMATS
    }
    best = max(found.values(), default=0)
    if best <= _found(iso):
        return iso
    winners = [form for form, count in found.items() if count == best]
    if len(winners) > 1:
        raise ambiguous(sample[0], winners)
    return _each(texts, _reader(winners[0]))


def _iso(text: str) -> datetime:
    """Read ISO 8601 by calendar dates, also with slashes or without a day; Python's own reader takes more."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(text)
    year, _, month, day, clock, lone = found.groups()
    return datetime.fromisoformat(f"{year}-{month or lone}-{day or '01'}{clock or ''}")


def _reader(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)


def _each(texts: Sequence[str], read: Callable[[str], datetime]) -> list[float]:
    return [_seconds(text, read) for text in texts]


def _seconds(text: str, read: Callable[[str], datetime]) -> float:
    try:
        moment = read(text)
        return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)
    except (ValueError, OverflowError):
        return nan


def _found(seconds: Sequence[float]) -> int:
    return sum(not isnan(value) for value in seconds)


def _number(text: str) -> float:
    try:
        return nan if "_" in text else float(text)
    except ValueError:
        return nan


def _whole(seconds: float) -> float:
    """Cut to whole seconds; infinity is no time."""
    if isfinite(seconds):
        return float(int(seconds)) if abs(seconds) < 1e12 else copysign(1e12, seconds)
    return nan
