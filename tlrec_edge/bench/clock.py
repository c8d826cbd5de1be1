"""The time that drivers measure; tests can replace the clock."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any, Protocol

_SPIN_NS = 80_000 if sys.platform == "linux" else 300_000
"""Nanoseconds before a deadline at which sleeping is too coarse and the thread spins instead.

As few as possible: on a busy machine the scheduler takes the core from a thread that spins long and
gives it to those that wait, and the thread is then milliseconds late.
"""
_PR_SET_TIMERSLACK = 29
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


class Clock(Protocol):
    """A monotonic clock in nanoseconds, with any start."""

    def now(self) -> int:
        """Return the current time."""

    def wait_until(self, deadline: int, exclusive: bool) -> None:
        """Return at ``deadline``, or at once if it has passed.

        ``exclusive`` means that no other thread needs the interpreter meanwhile.
        """


def set_timer_slack(ns: int) -> None:
    """Let sleeps of this thread end at most ``ns`` nanoseconds late; 0 restores the default.

    Linux delays them by 50 microseconds to save power, and that would count as latency of the
    request that was due. Other systems have no such setting, and nothing is done.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(ns), 0, 0, 0)


class WallClock:
    """The clock of this machine: it sleeps until shortly before a deadline, then spins.

    Punctual to a microsecond if the thread is alone; otherwise late by the delay of a sleep, which
    counts as latency.
    """

    now = staticmethod(time.perf_counter_ns)

    def wait_until(self, deadline: int, exclusive: bool) -> None:
        """Sleep, then spin until ``deadline``."""
        remaining = deadline - self.now()
        if remaining > _SPIN_NS:
            set_timer_slack(1)
            time.sleep((remaining - _SPIN_NS) / 1e9)
            set_timer_slack(0)
        while self.now() < deadline:
            if not exclusive:
                time.sleep(0)  # lets another thread have the interpreter


WALL = WallClock()
