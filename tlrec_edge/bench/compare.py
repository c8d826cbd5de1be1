"""Two systems, A and B, timed in turns on the same requests: how many times as long does B take?

A machine drifts by more than two bundles differ, so nothing is compared across time: every request goes to both, one
right after the other, in an order drawn by lot, and their times are divided. Where a process puts its memory can make a
system a few per cent faster than its twin; so both are opened anew for every round, a round gives one ratio, and the
interval is one of the rounds.
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.drivers import Call, Limits, warm_up
from tlrec_edge.bench.lab import caller
from tlrec_edge.bench.latency import binomial_cdf
from tlrec_edge.bench.system import Request, Source

ROUNDS = 12
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """Time of B over that of A, the median of the rounds' medians, and its interval at ``confidence``.

    The interval runs between two of the ordered rounds, so that it holds whatever their distribution is.
    """

    shape: str
    ratio: float
    low: float
    high: float
    confidence: float
    rounds: tuple[float, ...]
    a_us: float
    """Median time of A in microseconds."""
    b_us: float

    @property
    def verdict(self) -> str:
        """Return "slower", "faster" or "no difference shown": of B, as the interval says."""
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "no difference shown"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rounds": list(self.rounds), "verdict": self.verdict}


def compare(
    a: Source,
    b: Source,
    shape: str,
    requests: Sequence[Request],
    limits: Limits,
    seed: int = 0,
    *,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda line: None,
    clock: Clock = WALL,
) -> Ratio:
    """Time both on the same requests; each of ``rounds`` lasts ``limits.seconds``. Raises ValueError for few rounds."""
    interval = ordered_interval(rounds, _CONFIDENCE)
    if interval is None:
        raise ValueError(f"rounds = {rounds}: an interval at {_CONFIDENCE:.0%} needs at least 6")
    rng = np.random.default_rng([seed, 2])
    measurements = []
    for number in range(rounds):
        progress(f"{shape}: round {number + 1} of {rounds}")
        swapped = number % 2 == 1
        with ExitStack() as stack:
            first, second = (
                caller(stack.enter_context(source.open()), requests)
                for source in ((b, a) if swapped else (a, b))
            )
            ratio, first_us, second_us = _round(first, second, len(requests), limits, rng, clock)
        # Whatever it does to be the first, to be opened or to be called, it does to A and B in turn.
        measurements.append(
            (1 / ratio, second_us, first_us) if swapped else (ratio, first_us, second_us)
        )
    ratios = sorted(ratio for ratio, *_ in measurements)
    skipped, confidence = interval
    return Ratio(
        shape,
        statistics.median(ratios),
        ratios[skipped],
        ratios[-1 - skipped],
        confidence,
        tuple(ratio for ratio, *_ in measurements),
        statistics.median(a_us for _, a_us, _ in measurements),
        statistics.median(b_us for *_, b_us in measurements),
    )


def ordered_interval(n: int, confidence: float) -> tuple[int, float] | None:
    """Return how many of n ordered values to leave out at either end for an interval of their median.

    With it the confidence that this gives, at least ``confidence``; None where n is too small for any.
    """
    cdf = binomial_cdf(n, 0.5)
    fitting = [k for k in range((n + 1) // 2) if 1 - 2 * cdf[k] >= confidence]
    return (fitting[-1], float(1 - 2 * cdf[fitting[-1]])) if fitting else None


def _round(
    a: Call, b: Call, pool: int, limits: Limits, rng: np.random.Generator, clock: Clock
) -> tuple[float, float, float]:
    """Return the median of B's time over A's, and the median time of each in microseconds."""
    for call in (a, b):
        at = warm_up(call, pool, limits.warmup / 2, clock)
    durations_a, durations_b, a_was_first = array("q"), array("q"), array("b")
    a_goes_first = (rng.random(pool) < 0.5).tolist()
    min_end, max_end = limits.ends(clock.now())
    now = clock.now()
    while now < max_end and (now < min_end or len(durations_a) < limits.min_queries):
        at = (at + 1) % pool
        if at == 0:
            a_goes_first = (rng.random(pool) < 0.5).tolist()
        first, second = (a, b) if a_goes_first[at] else (b, a)
        start = clock.now()
        first(at)
        between = clock.now()
        second(at)
        now = clock.now()
        one, other = between - start, now - between
        durations_a.append(one if a_goes_first[at] else other)
        durations_b.append(other if a_goes_first[at] else one)
        a_was_first.append(a_goes_first[at])
    times_a, times_b = np.asarray(durations_a, np.float64), np.asarray(durations_b, np.float64)
    logs, order = np.log(times_b / times_a), np.asarray(a_was_first, bool)
    # Who comes second finds the caches warm: the two orders are two distributions, whose medians are averaged.
    medians = [float(np.median(part)) for part in (logs[order], logs[~order]) if len(part)]
    ratio = math.exp(statistics.fmean(medians))
    return ratio, float(np.median(times_a)) / 1000, float(np.median(times_b)) / 1000
