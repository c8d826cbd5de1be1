"""Search the highest rate of arrivals that a system serves within a bound of its p99."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tlrec_edge.bench.lab import Lab
from tlrec_edge.bench.latency import holds
from tlrec_edge.bench.loads import Load, capacity, drive
from tlrec_edge.bench.result import MaxThroughput, Row

_PERCENTILE = 0.99
_TOLERANCE = 1.05
_MAX_TRIALS = 12
_MIN_LOAD_DIVISOR = 32
"""At one part in so many of what it can do a system has no queue: what fails there, fails at any rate."""


def find_qps(
    lab: Lab, p99_us: float, progress: Callable[[str], None] = lambda line: None
) -> MaxThroughput:
    """Halve the interval between a rate that keeps the bound and one that does not, until 5 % are left between them.

    A rate keeps it if, for independent queries, p99 lies below the bound at the lab's confidence; a trial ends as soon
    as the contrary is shown.
    """
    nanoseconds, confidence = p99_us * 1000, lab.config.confidence
    max_rate = 1.1 * capacity(lab)
    low, high = 0.0, max_rate
    trials: list[tuple[Row, bool]] = []

    def verdict(durations: Sequence[int]) -> bool | None:
        times = np.array(durations[:])
        return holds(len(times), int((times > nanoseconds).sum()), _PERCENTILE, confidence)

    def failed(durations: Sequence[int]) -> bool | None:
        return False if verdict(durations) is False else None

    while (
        len(trials) < _MAX_TRIALS
        and high > _TOLERANCE * low
        and high > max_rate / _MIN_LOAD_DIVISOR
    ):
        rate = (low + high) / 2
        times = drive(lab, Load(rate), failed)
        row = Row(
            "server", "encoded", lab.load.label, lab.load.scored, times.describe(confidence), rate
        )
        passed = verdict(times.durations) is True and not row.saturated
        progress(
            f"{rate:,.0f} a second: p99 {row.latency.us['p99']:,.0f} us {'holds' if passed else 'does not hold'}"
        )
        trials.append((row, passed))
        low, high = (rate, high) if passed else (low, rate)
    return MaxThroughput(p99_us, confidence, low or None, tuple(trials))
