"""Types of the options of bench and plan."""

from __future__ import annotations

import re

import click

from tlrec_edge.bench.config import TOP_K
from tlrec_edge.cli.common import LARGEST, Number

POSITIVE = Number(min=0, min_open=True)
"""A finite number above 0."""
_DIGITS = r"\d{1,15}(?:\.\d{1,15})?"
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def counts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Read a list of counts such as 1,32,100."""
    if not value:
        return _empty(parameter, value)
    try:
        found = tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r:.60} is not a list of counts; use 1,32,100") from None
    if min(found) < 1 or max(found) > LARGEST:
        raise click.BadParameter(f"{value!r:.60}: every count must be in 1..{LARGEST:,}")
    return found


def _empty(parameter: click.Parameter, value: str) -> tuple[int, ...]:
    if parameter.default == value:
        return ()
    raise click.BadParameter("the list is empty; use 1,32,100")


def rates(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...]:
    """Read a list of rates such as 100,2000."""
    try:
        found = tuple(float(word) for word in (value or "").split(",") if value)
    except ValueError:
        raise click.BadParameter(f"{value!r:.60} is not a list of rates; use 100,2000") from None
    if not all(0 < rate < float("inf") for rate in found):
        raise click.BadParameter(f"{value!r:.60}: every rate must be above 0")
    return found


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Read a time such as 500us, 5ms or 1s, and return microseconds."""
    if value is None:
        return None
    found = re.fullmatch(rf"({_DIGITS})\s*(us|ms|s)", value.strip(), re.A)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{value!r:.60} is not a valid time; use 500us, 5ms or 1s")
    return float(found[1]) * _UNITS[found[2]]


def load(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Read a number of candidates, or top-k."""
    if value == "top-k":
        return TOP_K
    if not re.fullmatch(r"\d{1,10}", value, re.A) or not 1 <= int(value) <= LARGEST:
        raise click.BadParameter(f"{value!r:.60} is neither a number of candidates nor top-k")
    return int(value)


def fraction(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read a share, 10% or 0.1."""
    found = re.fullmatch(rf"({_DIGITS})(%?)", value.strip(), re.A)
    if found is None:
        raise click.BadParameter(f"{value!r:.60} is not a valid share; use 10% or 0.1")
    return float(found[1]) / (100 if found[2] else 1)
