"""How a system is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

DEFAULT_CANDIDATES = (1, 32, 100, 1000)
TOP_K = 0
"""Number of candidates that means the full catalogue."""
DRIVERS = ("native", "loadgen")
CACHES = ("warm", "cold")
MAX_DURATION_FACTOR = 5
"""A run lasts at most this many times its ``seconds``, even if it has seen too few queries."""
_MAX_QPS, _MAX_BATCH = 10_000_000, 4096
_MINIMA = {
    "k": 1,
    "min_queries": 1,
    "warmup": 0,
    "pool": 2,
    "zipf": 0,
    "starts": 1,
    "seed": 0,
    "load": 0,
    "streams": 1,
    "batch": 1,
    "threads": 1,
    "processes": 1,
}


@dataclass(frozen=True)
class BenchConfig:
    """Settings of a benchmark run.

    Args:
        candidates: Numbers of candidates in a request of the single-stream scenario.
        k: Number of items that a top-k request returns.
        seconds: Duration of each run. A run also waits for ``min_queries``, but it ends after
            five times ``seconds`` in any case.
        min_queries: Number of requests that each run needs. A bound of p99 at 99 % confidence
            needs at least 459.
        warmup: Seconds of untimed requests before each run.
        pool: Number of different requests. The cache of user states holds half as many, so a
            repeated request never finds its state in the cache.
        zipf: Exponent of the popularity of items in requests; 0 draws them uniformly.
        starts: Number of fresh processes whose start-up is measured.
        seed: Seed of requests and arrival times.
        histories: Lengths of history to measure. Empty: the length that the encoder reads.
        load: Candidates of a request in the multi-stream, server and offline scenarios; ``TOP_K``
            ranks the full catalogue.
        qps: Arrival rates of the server scenario, in requests per second. Empty: fixed fractions
            of the system's capacity, which is measured first.
        streams: Requests in a query of the multi-stream scenario.
        batch: Requests in a call of the offline scenario.
        threads: Threads of each process that answer in the server and offline scenarios.
        processes: Processes that answer in the server and offline scenarios.
        confidence: Confidence of the bounds of percentiles.
        driver: ``"native"``, or ``"loadgen"`` for MLCommons LoadGen.
        cache: ``"cold"`` also measures single-stream and top-k with the bundle read from disk.

    Raises:
        ValueError: If a setting is outside its range.
    """

    candidates: tuple[int, ...] = DEFAULT_CANDIDATES
    k: int = 10
    seconds: float = 2.0
    min_queries: int = 1000
    warmup: float = 0.2
    pool: int = 512
    zipf: float = 1.0
    starts: int = 5
    seed: int = 0
    histories: tuple[int, ...] = ()
    load: int = 100
    qps: tuple[float, ...] = ()
    streams: int = 8
    batch: int = 32
    threads: int = 1
    processes: int = 1
    confidence: float = 0.99
    driver: str = "native"
    cache: str = "warm"

    def __post_init__(self) -> None:
        for name, minimum in _MINIMA.items():
            if not minimum <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least {minimum}")
        for name in ("streams", "batch"):
            if getattr(self, name) > _MAX_BATCH:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at most {_MAX_BATCH:,}")
        for name, known in (("driver", DRIVERS), ("cache", CACHES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: expected one of {', '.join(known)}"
                )
        if not self.candidates or min(self.candidates) < 1:
            raise ValueError(
                f"candidates = {self.candidates}: give at least one count, each at least 1"
            )
        if any(length < 1 for length in self.histories):
            raise ValueError(f"histories = {self.histories}: each length must be at least 1")
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds = {self.seconds}: expected more than 0")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(
                f"confidence = {self.confidence}: expected at least 0.5 and less than 1"
            )
        if self.driver == "loadgen" and self.processes > 1:
            raise ValueError(
                f"processes = {self.processes}: LoadGen drives one process; use threads instead"
            )
        self._check_rates()

    def _check_rates(self) -> None:
        if not all(0 < rate <= _MAX_QPS for rate in self.qps):
            raise ValueError(
                f"qps = {self.qps}: expected rates above 0 and up to {_MAX_QPS:,} per second"
            )
        longest = MAX_DURATION_FACTOR * self.seconds
        if any(rate * longest < 1 for rate in self.qps):
            raise ValueError(
                f"qps = {self.qps}: the slowest rate sends no request in {longest:g} s; "
                "raise seconds"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
