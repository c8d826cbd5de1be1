"""Time as the drivers see it; a test may put another clock in its place."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any, Protocol

_SPIN_NS = 80_000 if sys.platform == "linux" else 300_000
"""Nanoseconds before the moment from which sleeping is too coarse.

As few as will do: on a busy machine who looks on loses the core to those who wait for it, and is milliseconds late.
"""


class Clock(Protocol):
    """Nanoseconds that only rise, from any start."""

    def now(self) -> int: ...

    def wait_until(self, deadline: int, exclusive: bool) -> None:
        """Return at ``deadline``, at once where it has passed; ``exclusive``: no other thread needs the interpreter."""


_PR_SET_TIMERSLACK = 29
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def set_timer_slack(ns: int) -> None:
    """Let this thread's sleeps run over by at most ``ns``, 0 for what is usual; does nothing outside of Linux.

    The usual 50 microseconds of Linux, which save power, count as latency of whatever was to start at a given moment.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(ns), 0, 0, 0)


class WallClock:
    """This machine's clock: sleeps, and looks on in the end.

    Punctual to a microsecond where it is alone, else to a sleep's own delay, which counts as latency.
    """

    now = staticmethod(time.perf_counter_ns)

    def wait_until(self, deadline: int, exclusive: bool) -> None:
        remaining = deadline - self.now()
        if remaining > _SPIN_NS:
            set_timer_slack(1)
            time.sleep((remaining - _SPIN_NS) / 1e9)
            set_timer_slack(0)
        while self.now() < deadline:
            if not exclusive:
                time.sleep(0)


WALL = WallClock()
