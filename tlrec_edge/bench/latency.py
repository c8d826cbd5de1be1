"""Times of single queries, and what they say: percentiles, and bounds of percentiles at a stated confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_CURVE = (
    0,
    0.01,
    0.05,
    *(n / 10 for n in range(1, 10)),
    0.95,
    0.98,
    0.99,
    0.995,
    0.998,
    0.999,
    0.9995,
    0.9999,
    1,
)


@dataclass(frozen=True)
class Latencies:
    """What one run saw. ``us``: percentiles and maximum, in microseconds; ``samples``: requests in all queries.

    ``bound_us``: what each percentile is at most, at the run's confidence and for independent queries; a percentile
    that so few queries cannot bound is left out. ``curve``: latency by share of the queries. ``unanswered``: queries
    still waiting when the run was given up; they count with the time they had waited. ``joules``: of the machine.
    ``arrived_qps``: the rate at which queries came by their schedule, which few Poisson arrivals make another than the
    one asked for; None where they had none.
    """

    queries: int
    seconds: float
    cpu_seconds: float
    us: dict[str, float]
    samples: int = 0
    bound_us: dict[str, float] | None = None
    curve: tuple[tuple[float, float], ...] = ()
    unanswered: int = 0
    pss_bytes: int | None = None
    joules: float | None = None
    arrived_qps: float | None = None

    @property
    def qps(self) -> float:
        """Requests answered in one second."""
        return (self.samples or self.queries) / self.seconds

    @property
    def cpu_seconds_per_million(self) -> float:
        """CPU seconds of a million requests, which are CPU microseconds of one."""
        return self.cpu_seconds / (self.samples or self.queries) * 1e6

    @property
    def cpu_percent(self) -> float:
        """Busy share of one core; 200 is two busy cores."""
        return 100 * self.cpu_seconds / self.seconds


@dataclass(frozen=True)
class Times:
    """Every query of a run, in nanoseconds; ``query_size`` is the number of requests in a query."""

    durations: Sequence[int]
    seconds: float
    cpu_seconds: float
    query_size: int = 1
    unanswered: int = 0
    pss_bytes: int | None = None
    """Memory of all processes that answered, shared pages counted once; None where they were not processes alone."""
    joules: float | None = None
    arrived_qps: float | None = None

    def describe(self, confidence: float) -> Latencies:
        """Return percentiles, and their bounds at ``confidence``. Raises ValueError where there are no times."""
        if not len(self.durations):
            raise ValueError("no query was timed")
        ordered = np.sort(np.asarray(self.durations, np.int64)) / 1000  # (n,), microseconds
        curve = tuple((float(p), percentile(ordered, p)) for p in _CURVE)
        return Latencies(
            len(ordered),
            self.seconds,
            self.cpu_seconds,
            describe(ordered),
            self.query_size * len(ordered),
            _bounds(ordered, confidence),
            curve,
            self.unanswered,
            self.pss_bytes,
            self.joules,
            self.arrived_qps,
        )


def merge(runs: Iterable[Times]) -> Times:
    """Return the queries of several processes that ran at the same time as those of one run."""
    runs = list(runs)
    memory, arrived = [run.pss_bytes for run in runs], [run.arrived_qps for run in runs]
    durations = np.concatenate([np.asarray(run.durations, np.int64) for run in runs])
    return Times(
        durations.tolist(),
        max(run.seconds for run in runs),
        sum(run.cpu_seconds for run in runs),
        runs[0].query_size,
        sum(run.unanswered for run in runs),
        None if None in memory else sum(size or 0 for size in memory),
        arrived_qps=None if None in arrived else sum(rate or 0.0 for rate in arrived),
    )


def percentile(ordered: Sequence[float] | NDArray[np.float64], p: float) -> float:
    """Return ``ordered[floor(n * p)]``, MLPerf LoadGen's definition; ``ordered`` rises and is not empty."""
    return float(ordered[min(len(ordered) - 1, math.floor(len(ordered) * p))])


def describe(ordered: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Return the percentiles and the maximum of what rises."""
    return {name: percentile(ordered, p) for name, p in PERCENTILES.items()} | {
        "max": float(ordered[-1])
    }


def binomial_cdf(n: int, q: float) -> NDArray[np.float64]:
    """Return P(X <= k) for k = 0..n, X the number of hits in n independent trials of chance 0 < q < 1."""
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + (math.log(q) - math.log1p(-q))
    log_mass = n * math.log1p(-q) + np.concatenate([[0.0], np.cumsum(steps)])
    cdf: NDArray[np.float64] = np.minimum(np.cumsum(np.exp(log_mass)), 1.0)
    return cdf


def max_exceeding(n: int, p: float, confidence: float) -> int | None:
    """Return how many of n queries may lie above the order statistic that bounds percentile ``p``; None if none does.

    The largest t with P(X <= t) <= 1 - confidence, X the number of n queries beyond the percentile: LoadGen's early
    stopping criterion without a tolerance.
    """
    count = int(np.searchsorted(binomial_cdf(n, 1 - p), 1 - confidence, side="right")) - 1
    return count if count >= 0 else None


def holds(n: int, above: int, p: float, confidence: float) -> bool | None:
    """Say whether percentile ``p`` lies below a bound that ``above`` of n queries exceeded; None: not yet known."""
    if not n:
        return None
    cdf = binomial_cdf(n, 1 - p)
    if cdf[above] <= 1 - confidence:
        return True
    return False if above and 1 - cdf[above - 1] <= 1 - confidence else None


def _bounds(ordered: NDArray[np.float64], confidence: float) -> dict[str, float]:
    found = {name: max_exceeding(len(ordered), p, confidence) for name, p in PERCENTILES.items()}
    return {name: float(ordered[-1 - above]) for name, above in found.items() if above is not None}
