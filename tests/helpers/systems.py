"""Systems under test whose times are known, and a clock that only they move."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tlrec_edge.bench.clock import Clock

MS = 1_000_000


class VirtualClock:
    """A clock on which time passes only when something waits."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def wait_until(self, deadline: int, exclusive: bool = True) -> None:
        self.time = max(self.time, deadline)


class TickingClock:
    """A clock that moves on by ``tick`` nanoseconds each time it is read.

    What a run measures on it depends neither on the speed of the machine nor on its load.
    """

    def __init__(self, tick: int = MS // 10) -> None:
        self.time, self.tick = 0, tick

    def now(self) -> int:
        self.time += self.tick
        return self.time

    def wait_until(self, deadline: int, exclusive: bool = True) -> None:
        self.time = max(self.time, deadline)


class Stalling:
    """A system that takes ``work`` nanoseconds per request and stalls at each period's start.

    Nothing moves for ``stall`` nanoseconds at the start of every ``period``.
    """

    def __init__(
        self, clock: Clock, work: int = 2 * MS, stall: int = 200 * MS, period: int = 1000 * MS
    ) -> None:
        self.clock, self.work, self.stall, self.period = clock, work, stall, period
        self.started = clock.now()

    def done(self, start: int) -> int:
        """Return when a request that starts at ``start`` is done."""
        start -= self.started
        left, since = self.work, start % self.period
        if since < self.stall:
            start += self.stall - since
        until = self.period - start % self.period
        return self.started + start + left + (self.stall if left >= until else 0)

    def answer(self, requests: Sequence[Any]) -> None:
        for _ in requests:
            self.clock.wait_until(self.done(self.clock.now()), exclusive=True)

    def latencies(self, arrivals: Sequence[int]) -> list[int]:
        """Return the true latencies of arrivals that one server takes in order."""
        free, found = 0, []
        for arrival in arrivals:
            free = self.done(max(free, arrival))
            found.append(free - arrival)
        return found


class SleepingClock:
    """The real clock, which sleeps until a deadline."""

    now = staticmethod(time.perf_counter_ns)

    def wait_until(self, deadline: int, exclusive: bool = True) -> None:
        left = deadline - self.now()
        if left > 0:
            time.sleep(left / 1e9)


class Recorder:
    """A system that records its requests."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def answer(self, requests: Sequence[Any]) -> None:
        self.seen.extend(requests)
