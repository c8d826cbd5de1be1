"""Counts with their noun, as messages write them."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """Return "1 row" or "2,000 rows"; ``many`` is ``one`` with an s unless it is named."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"
