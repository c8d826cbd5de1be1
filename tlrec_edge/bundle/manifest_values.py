"""Numbers of a manifest: of the right type and finite, or a ValueError that names the entry."""

from __future__ import annotations

import math
from typing import Any


def integer(name: str, value: Any) -> int:
    """Return an integer. Raises ValueError if it is anything else, such as ``true`` or ``8.0``."""
    if type(value) is not int:
        raise ValueError(f"{name} = {value!r:.40}, expected an integer")
    return value


def number(name: str, value: Any) -> float:
    """Return a number. Raises ValueError if it is anything else, such as ``true`` or ``NaN``."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r:.40}, expected a finite number")
    return float(value)


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return the two entries of a list. Raises ValueError if it is anything else."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{name} = {value!r:.40}, expected a list of two numbers")
    return value[0], value[1]
