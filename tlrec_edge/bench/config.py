"""How a system is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

DEFAULT_CANDIDATES = (1, 32, 100, 1000)
TOP_K = 0
"""In the place of a number of candidates: rank the whole catalogue."""
DRIVERS = ("native", "loadgen")
MAX_DURATION_FACTOR = 5
"""A row ends after so many times its seconds, however few queries there were."""
_MAX_QPS, _MAX_BATCH = 10_000_000, 4096
CACHES = ("warm", "cold")


@dataclass(frozen=True)
class BenchConfig:
    """A row ends after ``seconds`` and ``min_queries``, whichever is later, but after ``5 * seconds`` at the latest.

    ``pool`` is how many different requests there are; the cache of user states holds half of them, so that going round
    the pool never finds a state in it. ``histories``: lengths to measure, none for what the system reads. ``load``:
    candidates of a request in the scenarios of load (multi-stream, server, offline), ``TOP_K`` for the whole catalogue.
    ``qps``: arrival rates of the server scenario, none for shares of what the system can do. ``streams``: requests in
    one query of multi-stream; ``batch``: requests in one call of offline. ``threads`` and ``processes`` answer in the
    server and offline scenarios. ``confidence``: of the bounds of percentiles. ``cache`` cold: single-stream and top-k
    ask a bundle once more, each time with its files out of the page cache.
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
        if not self.candidates or min(self.candidates) < 1:
            raise ValueError(
                f"candidates = {self.candidates}: give at least one count, each at least 1"
            )
        for name in ("k", "min_queries", "starts", "streams", "batch", "threads", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        if not 0 < self.seconds < float("inf") or not 0 <= self.warmup < float("inf"):
            raise ValueError(
                f"seconds = {self.seconds}, warmup = {self.warmup}: expected more than 0 and at least 0"
            )
        if self.pool < 2 or self.zipf < 0 or self.seed < 0:
            raise ValueError(
                f"pool = {self.pool}, zipf = {self.zipf}, seed = {self.seed}: expected 2, 0, 0 or more"
            )
        if self.load < 0 or any(length < 1 for length in self.histories):
            raise ValueError(
                f"load = {self.load}, histories = {self.histories}: expected 0 or more, each at least 1"
            )
        if not all(0 < rate <= _MAX_QPS for rate in self.qps):
            raise ValueError(
                f"qps = {self.qps}: expected rates of more than 0 and at most {_MAX_QPS:,} a second"
            )
        if any(rate * MAX_DURATION_FACTOR * self.seconds < 1 for rate in self.qps):
            raise ValueError(
                f"qps = {self.qps}: not one request in {MAX_DURATION_FACTOR * self.seconds:g} s; give more seconds"
            )
        if max(self.streams, self.batch) > _MAX_BATCH:
            raise ValueError(
                f"streams = {self.streams}, batch = {self.batch}: expected at most {_MAX_BATCH:,}"
            )
        if not 0.5 <= self.confidence < 1:
            raise ValueError(
                f"confidence = {self.confidence}: expected at least 0.5 and less than 1"
            )
        if self.driver not in DRIVERS:
            raise ValueError(f"driver = {self.driver!r}: expected one of {', '.join(DRIVERS)}")
        if self.cache not in CACHES:
            raise ValueError(f"cache = {self.cache!r}: expected one of {', '.join(CACHES)}")
        if self.driver == "loadgen" and self.processes > 1:
            raise ValueError(
                f"processes = {self.processes}: LoadGen drives one process; use threads"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BenchConfig:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**fields)
