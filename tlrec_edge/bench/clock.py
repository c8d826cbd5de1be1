"""Time as the drivers see it; a test may put another clock in its place."""

from __future__ import annotations

import time
from typing import Protocol

_SPIN = 300_000
"""Nanoseconds before the moment from which sleeping is too coarse: a sleep ends 50 to 150 microseconds late."""


class Clock(Protocol):
    """Nanoseconds that only rise, from any start."""

    def now(self) -> int: ...

    def wait_until(self, moment: int, alone: bool) -> None:
        """Return at ``moment``, at once where it has passed; ``alone``: no other thread needs the interpreter."""


class WallClock:
    """This machine's clock: sleeps, and looks on in the end.

    Punctual to a microsecond where it is alone, else to a sleep's own delay of some 60 microseconds, which counts as
    latency.
    """

    now = staticmethod(time.perf_counter_ns)

    def wait_until(self, moment: int, alone: bool) -> None:
        left = moment - self.now()
        if left > _SPIN:
            time.sleep((left - _SPIN) / 1e9)
        while self.now() < moment:
            if not alone:
                time.sleep(0)


WALL = WallClock()
