"""Time calls one after another and describe what was seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_MIN_WARM_UP_CALLS = 10
_LONGEST = 5.0


@dataclass(frozen=True)
class Latencies:
    """What one closed loop saw. ``us``: the percentiles and the maximum, in microseconds."""

    queries: int
    seconds: float
    cpu_seconds: float
    us: dict[str, float]

    @property
    def qps(self) -> float:
        """Requests in one second of one stream."""
        return self.queries / self.seconds

    @property
    def cpu_seconds_per_million(self) -> float:
        return self.cpu_seconds / self.queries * 1e6


def percentile(ordered: Sequence[float], p: float) -> float:
    """Return ``ordered[floor(n * p)]``, MLPerf LoadGen's definition; ``ordered`` rises and is not empty."""
    return ordered[min(len(ordered) - 1, math.floor(len(ordered) * p))]


def describe(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Return the percentiles and the maximum in microseconds."""
    ordered = sorted(nanoseconds)
    found = {name: percentile(ordered, p) / 1000 for name, p in PERCENTILES.items()}
    return found | {"max": ordered[-1] / 1000}


def time_calls(call: Callable[[int], Any], pool: int, *, seconds: float, min_queries: int, warmup: float) -> Latencies:
    """Call ``call(0)``, ``call(1)``, ... round and round the pool; each starts when the one before has ended."""
    at = _warm_up(call, pool, warmup)
    clock = time.perf_counter_ns
    taken: list[int] = []
    cpu, started = time.process_time(), clock()
    soft, hard = started + int(seconds * 1e9), started + int(_LONGEST * seconds * 1e9)
    now = started
    while now < hard and (now < soft or len(taken) < min_queries):
        at = (at + 1) % pool
        before = clock()
        call(at)
        now = clock()
        taken.append(now - before)
    return Latencies(len(taken), (now - started) / 1e9, time.process_time() - cpu, describe(taken))


def _warm_up(call: Callable[[int], Any], pool: int, seconds: float) -> int:
    end = time.perf_counter() + seconds
    at = 0
    while at < _MIN_WARM_UP_CALLS or time.perf_counter() < end:
        call(at % pool)
        at += 1
    return (at - 1) % pool
