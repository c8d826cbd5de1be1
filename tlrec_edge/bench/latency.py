"""Percentiles of query times, and upper bounds of percentiles at a stated confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tlrec_edge.types import Doubles

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_BODY = (0.0, 0.01, 0.05, *(n / 10 for n in range(1, 10)), 0.95)
_TAIL = (0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)
_CURVE = (*_BODY, *_TAIL)


@dataclass(frozen=True)
class Latencies:
    """Summary of the queries of one run."""

    queries: int
    seconds: float
    cpu_seconds: float
    us: dict[str, float]
    """Percentiles and ``max``, in microseconds."""
    samples: int = 0
    """Requests in all queries; 0 if each query is one request."""
    bound_us: dict[str, float] | None = None
    """Upper bounds of the percentiles at the run's confidence, if queries are independent.

    A percentile is missing if there are too few queries to bound it.
    """
    curve: tuple[tuple[float, float], ...] = ()
    """Pairs of a fraction and a latency: so many of the queries finish within it."""
    unanswered: int = 0
    """Queries that still waited when the run was given up; they count with the time so far."""
    pss_bytes: int | None = None
    joules: float | None = None
    """Energy that the machine used."""
    arrived_qps: float | None = None
    """Rate of arrivals in the schedule; None if there was no schedule.

    A short Poisson schedule has another rate than the target by chance.
    """

    @property
    def qps(self) -> float:
        """Requests answered per second."""
        return (self.samples or self.queries) / self.seconds

    @property
    def cpu_seconds_per_million(self) -> float:
        """CPU seconds of a million requests, which are CPU microseconds of one request."""
        return self.cpu_seconds / (self.samples or self.queries) * 1e6

    @property
    def cpu_percent(self) -> float:
        """CPU use in per cent of one core; 200 is two busy cores."""
        return 100 * self.cpu_seconds / self.seconds


@dataclass(frozen=True)
class Times:
    """Durations of all queries of a run, in nanoseconds."""

    durations: Sequence[int]
    seconds: float
    cpu_seconds: float
    query_size: int = 1
    """Requests in a query."""
    unanswered: int = 0
    pss_bytes: int | None = None
    """Memory of the processes that answered, with shared pages counted once.

    None if this process answered, because it contains more than the system.
    """
    joules: float | None = None
    arrived_qps: float | None = None

    def describe(self, confidence: float) -> Latencies:
        """Return percentiles and their bounds. Raises ValueError if there are no times."""
        if not len(self.durations):
            raise ValueError("no query was timed")
        ordered = np.sort(np.asarray(self.durations, np.int64)) / 1000  # (n,), microseconds
        return Latencies(
            queries=len(ordered),
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            us=describe(ordered),
            samples=self.query_size * len(ordered),
            bound_us=_bounds(ordered, confidence),
            curve=tuple((p, percentile(ordered, p)) for p in _CURVE),
            unanswered=self.unanswered,
            pss_bytes=self.pss_bytes,
            joules=self.joules,
            arrived_qps=self.arrived_qps,
        )


def merge(runs: Iterable[Times]) -> Times:
    """Return the queries of processes that ran at the same time as one run."""
    runs = list(runs)
    memory, arrived = [run.pss_bytes for run in runs], [run.arrived_qps for run in runs]
    durations = np.concatenate([np.asarray(run.durations, np.int64) for run in runs])
    return Times(
        durations.tolist(),
        seconds=max(run.seconds for run in runs),
        cpu_seconds=sum(run.cpu_seconds for run in runs),
        query_size=runs[0].query_size,
        unanswered=sum(run.unanswered for run in runs),
        pss_bytes=None if None in memory else sum(size or 0 for size in memory),
        arrived_qps=None if None in arrived else sum(rate or 0.0 for rate in arrived),
    )


def percentile(ordered: Sequence[float] | Doubles, p: float) -> float:
    """Return ``ordered[floor(n * p)]``, the definition of MLPerf LoadGen.

    ``ordered`` is ascending and not empty.
    """
    return float(ordered[min(len(ordered) - 1, math.floor(len(ordered) * p))])


def describe(ordered: Sequence[float] | Doubles) -> dict[str, float]:
    """Return the percentiles and the maximum of ascending values."""
    found = {name: percentile(ordered, p) for name, p in PERCENTILES.items()}
    return found | {"max": float(ordered[-1])}


def binomial_cdf(n: int, q: float) -> Doubles:
    """Return P(X <= k) for k = 0..n, X the successes in n independent trials of probability q.

    ``q`` must be above 0 and below 1. Logarithms keep large n from underflow.
    """
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + (math.log(q) - math.log1p(-q))
    log_mass = n * math.log1p(-q) + np.concatenate([[0.0], np.cumsum(steps)])
    cdf: Doubles = np.minimum(np.cumsum(np.exp(log_mass)), 1.0)
    return cdf


def max_exceeding(n: int, p: float, confidence: float) -> int | None:
    """Return how many of n times may exceed one of them that still bounds percentile ``p``.

    This is the largest t with P(X <= t) <= 1 - confidence, X the number of n queries beyond the
    percentile: if that few exceed a value, the percentile is very unlikely to lie above it. It is
    LoadGen's early stopping criterion without a tolerance. None if n is too small for any t.
    """
    count = int(np.searchsorted(binomial_cdf(n, 1 - p), 1 - confidence, side="right")) - 1
    return count if count >= 0 else None


def holds(n: int, above: int, p: float, confidence: float) -> bool | None:
    """Return whether percentile ``p`` is within a bound that ``above`` of n queries exceeded.

    None if that many queries show neither.
    """
    if not n:
        return None
    cdf = binomial_cdf(n, 1 - p)
    if cdf[above] <= 1 - confidence:
        return True
    return False if above and 1 - cdf[above - 1] <= 1 - confidence else None


def _bounds(ordered: Doubles, confidence: float) -> dict[str, float]:
    above = {name: max_exceeding(len(ordered), p, confidence) for name, p in PERCENTILES.items()}
    return {name: float(ordered[-1 - t]) for name, t in above.items() if t is not None}
