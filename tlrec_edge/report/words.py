"""Values as a reader wants them."""

from __future__ import annotations

from html import escape
from typing import Any

MISSING = "–"


def text(value: Any) -> str:
    """Return any value as escaped text."""
    return MISSING if value is None else escape(str(value))


def number(value: Any, digits: int = 4, sign: bool = False) -> str:
    """Return a number with a fixed number of decimals; integers with thousands."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    if isinstance(value, int):
        return f"{value:+,}" if sign else f"{value:,}"
    return (
        f"{value:+.{digits}f}".replace("-", "−")
        if sign
        else f"{value:.{digits}f}".replace("-", "−")
    )


def significant(value: Any) -> str:
    """Return a number with three significant digits, however small it is."""
    return f"{value:.3g}" if isinstance(value, int | float) else text(value)


def size(value: float) -> str:
    """Return bytes in the unit that fits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f} bytes"


def microseconds(value: Any) -> str:
    """Return microseconds as a whole number with thousands."""
    return f"{value:,.0f}" if isinstance(value, int | float) else text(value)


def sign_class(low: float, high: float) -> str:
    """Return which side of zero an interval lies on, as a style class."""
    return "good" if low > 0 else "bad" if high < 0 else ""
