"""Search for the highest arrival rate that keeps p99 within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tlrec_edge.bench.lab import Lab
from tlrec_edge.bench.latency import PERCENTILES, holds
from tlrec_edge.bench.loads import Load, capacity, drive
from tlrec_edge.bench.result import MaxThroughput, Row

_TOLERANCE = 1.05
_MAX_TRIALS = 12
_FIRST_BOUND = 1.1
"""Upper end of the search, as a multiple of the capacity, which is a measurement with an error."""
_MIN_LOAD_DIVISOR = 32
"""The search ends at the capacity divided by this: no queue forms at so low a rate."""


def find_qps(
    lab: Lab, p99_us: float, progress: Callable[[str], None] = lambda line: None
) -> MaxThroughput:
    """Find the highest request rate whose p99 stays within ``p99_us`` microseconds, to 5 %.

    The rate is found by bisection. A trial passes if its queries show at the lab's confidence that
    p99 is within the bound; it ends early if they show that p99 is not.
    """
    bound_ns, confidence = p99_us * 1000, lab.config.confidence
    max_rate = _FIRST_BOUND * capacity(lab)
    low, high = 0.0, max_rate
    trials: list[tuple[Row, bool]] = []

    def verdict(durations: Sequence[int]) -> bool | None:
        # Other threads append while this runs: work on a copy.
        times = np.array(durations[:])
        return holds(len(times), int((times > bound_ns).sum()), PERCENTILES["p99"], confidence)

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
            scenario="server",
            state="encoded",
            shape=lab.load.label,
            scored=lab.load.scored,
            latency=times.describe(confidence),
            target_qps=rate,
        )
        passed = verdict(times.durations) is True and not row.saturated
        outcome = "holds" if passed else "does not hold"
        progress(f"{rate:,.0f} requests/s: p99 {row.latency.us['p99']:,.0f} us {outcome}")
        trials.append((row, passed))
        low, high = (rate, high) if passed else (low, rate)
    return MaxThroughput(p99_us, confidence, low or None, tuple(trials))
