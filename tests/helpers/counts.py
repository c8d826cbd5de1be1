"""How much the tests of many cases did: pytest prints it at the end of a run."""

from __future__ import annotations

from collections import Counter

SAID: list[str] = []
COUNTED: Counter[str] = Counter()


def say(text: str) -> None:
    """Print a line at the end of the run."""
    SAID.append(text)


def count(cases: str, number: int = 1) -> None:
    """Add to a number of cases, which is printed at the end of the run."""
    COUNTED[cases] += number
