"""Parse a column of numbers, as people and spreadsheets write them.

Beyond plain numbers these are read: full-width digits, currency signs and codes, spaces or
apostrophes between thousands, percent, and the multiples 万 and 亿. A comma is read if the column
shows what it means: decimal if some number has one or two digits after it ("6,30") or several
points ("1.234.567"), thousands if some has a point after it ("1,234.50") or several commas.
Otherwise the cells are not numbers, and the caller says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from math import inf, isfinite, nan
from typing import NamedTuple

import numpy as np

from tlrec_edge.tabular.column import Column
from tlrec_edge.types import Bools, Doubles

MISSING_WORDS = frozenset(
    ["nan", "inf", "-inf", "+inf", "infinity", "-infinity", "null", "none", "na", "n/a", "-"]
)
"""Words for a number that is missing."""
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CURRENCY = re.compile(
    r"(\b[A-Z]{1,2})?\$|[€£¥₩₹₽₺₫฿元円圆원]|\b(USD|EUR|GBP|JPY|CNY|RMB|KRW|INR|CHF|AUD|CAD|BRL)\b",
    re.IGNORECASE,
)
_MULTIPLES = {"万": 1e4, "亿": 1e8, "%": 0.01}
_GROUPS = re.compile(r"(?<=\d)[\s\u00a0\u202f'’](?=\d{3}(\D|$))")
_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,3}((\.\d{3})+|\d*),(\d{1,2}|\d{4,})")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}((,\d{2,3})+,\d{3}(\.\d*)?|,\d{3}\.\d*)")
_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_AMBIGUOUS = re.compile(r"[+-]?\d{1,3},\d{3}")


class Numbers(NamedTuple):
    """Numbers, NaN if missing; ``invalid`` marks cells with anything but a finite number."""

    values: Doubles
    invalid: Bools


def read_numbers(column: Column, decimal: str = "") -> Numbers:
    """Read numbers; NaN, infinity and other text are marked invalid, empty cells are missing.

    ``decimal`` is "," or "." if the data's mark is known; by default the column shows it.
    """
    parsed = parse_numbers(column.names, decimal)
    values = np.array([*parsed, nan])[column.codes]  # the last entry is for code -1
    finite = np.isfinite(values)
    blank = np.array([*(not name.strip() for name in column.names), True], bool)[column.codes]
    return Numbers(np.where(finite, values, nan), ~finite & ~blank)


def count_numbers(column: Column, decimal: str = "") -> int:
    """Count the cells that are numbers, or words for a missing number (nan, inf, null)."""
    parsed = parse_numbers(column.names, decimal)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.names))
    is_number = [
        isfinite(value) or name.strip().lower() in MISSING_WORDS
        for name, value in zip(column.names, parsed, strict=True)
    ]
    return int(counts[np.array(is_number, bool)].sum()) if is_number else 0


def parse_numbers(texts: Sequence[str], decimal: str = "") -> list[float]:
    """Return the number in each text, NaN if it has none."""
    plain = [_parse_plain(text) for text in texts]
    cleaned = {at: _clean(texts[at]) for at, value in enumerate(plain) if value is None}
    decimal = decimal or decimal_mark(cleaned.values())
    if decimal == ",":  # then the points of 1.234 are for thousands
        points = (at for at, text in enumerate(texts) if _POINTS.fullmatch(text))
        cleaned |= {at: texts[at] for at in points}
    numbers = [nan if value is None else value for value in plain]
    for at, text in cleaned.items():
        numbers[at] = _parse_clean(text, decimal)
    return numbers


def decimal_mark(cleaned: Iterable[str]) -> str:
    """Return what the commas of a column are: "," decimal, "." thousands, "" if it is not clear."""
    texts = [text for text in cleaned if "," in text or text.count(".") > 1]
    decimal = any(_DECIMAL_COMMA.fullmatch(text) or _POINTS.fullmatch(text) for text in texts)
    thousands = any(map(_THOUSANDS.fullmatch, texts))
    if decimal == thousands:
        return ""
    return "," if decimal else "."


def ambiguous_number(texts: Iterable[str]) -> str | None:
    """Return a number whose comma may be decimal or for thousands, if the column has only such."""
    cleaned = _marked(texts)
    if decimal_mark(cleaned):
        return None
    return next((text for text in cleaned if _AMBIGUOUS.fullmatch(text)), None)


def number_notes(name: str, column: Column, decimal: str = "") -> list[str]:
    """Return what is uncertain about a column of numbers, which may be right."""
    notes = []
    if not decimal and (text := ambiguous_number(column.names)):
        notes.append(f"{name} {text!r:.40} may have a decimal comma: set decimal under [files]")
    if not decimal and (text := _ambiguous_point(column.names)):
        notes.append(
            f"{name} {text!r:.40} is read with a decimal point; if the point is for thousands, set "
            'decimal = "," under [files] in a schema'
        )
    texts = (text for text in column.names if _parse_plain(text) is None)
    currencies = sorted({sign[0] for text in texts for sign in _CURRENCY.finditer(text)})
    if len(currencies) > 1:
        notes.append(f"{name} has several currencies, not converted: {', '.join(currencies)}")
    return notes


def _ambiguous_point(texts: Sequence[str]) -> str | None:
    """Return a number whose point may be for thousands, if the column has only such: 12.000."""
    if not all(_POINTS.fullmatch(_clean(text)) for text in texts if "." in text):
        return None
    return None if decimal_mark(_marked(texts)) else next((t for t in texts if "." in t), None)


def _marked(texts: Iterable[str]) -> list[str]:
    """Return the texts that may show what a comma or a point means."""
    return [_clean(text) for text in texts if "," in text or text.count(".") > 1]


def _parse_plain(text: str) -> float | None:
    """Return a number as Python reads it; None if the text has another form."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _clean(text: str) -> str:
    """Return a text without currency and blanks between thousands, with ASCII digits."""
    text = unicodedata.normalize("NFKC", text).strip()
    return _GROUPS.sub("", _CURRENCY.sub("", text)).strip()


def _parse_clean(text: str, decimal: str) -> float:
    multiple = _MULTIPLES.get(text[-1:], 1.0)
    if multiple != 1.0:
        text = text[:-1].strip()
    if decimal == "," and ("," in text or _POINTS.fullmatch(text)):
        text = text.replace(".", "").replace(",", ".")
    elif decimal == "." and (_THOUSANDS.fullmatch(text) or _AMBIGUOUS.fullmatch(text)):
        text = text.replace(",", "")
    if not _PLAIN.fullmatch(text):
        return nan
    value = float(text) * multiple
    return value if abs(value) < inf else nan
