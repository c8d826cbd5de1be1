"""How much a test of many cases did; `pytest -rP` shows it."""

from __future__ import annotations

import sys


def say(count: str) -> None:
    sys.stdout.write(f"{count}\n")
