"""Values formatted for readers."""

from __future__ import annotations

from html import escape
from typing import Any

MISSING = "–"


def text(value: Any) -> str:
    """Return any value as escaped text, and a dash for None."""
    return MISSING if value is None else escape(str(value))


def number(value: Any, digits: int = 4, sign: bool = False) -> str:
    """Return a float with a fixed number of decimals, or an integer with thousands separators."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    plus = "+" if sign else ""
    decimals = "," if isinstance(value, int) else f".{digits}f"
    return format(value, plus + decimals).replace("-", "−")


def significant(value: Any) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}" if isinstance(value, int | float) else text(value)


def size(value: float) -> str:
    """Return bytes in the unit that fits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f} bytes"


def microseconds(value: Any) -> str:
    """Return microseconds as an integer with thousands separators."""
    return f"{value:,.0f}" if isinstance(value, int | float) else text(value)


def sign_class(low: float, high: float) -> str:
    """Return ``good`` or ``bad`` if an interval lies above or below zero, else nothing."""
    return "good" if low > 0 else "bad" if high < 0 else ""
