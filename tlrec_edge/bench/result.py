"""The result of a benchmark run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.cost_estimate import CostEstimate
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.bench.machine import Machine
from tlrec_edge.bench.noise import Noise
from tlrec_edge.bench.startup import Startup

VERSION = 1
"""Version of the JSON (``result.schema.json``). It rises if readers of the old one would fail."""
_MIN_ANSWERED_FRACTION = 0.9


@dataclass(frozen=True)
class Row:
    """The measurement of one shape of request in one scenario."""

    scenario: str
    state: str
    """``encoded``: the request encodes the history. ``given``: the user's state is passed in.
    ``cold``: encoded, with the bundle read from disk."""
    shape: str
    scored: int
    """Candidates scored in one request."""
    latency: Latencies
    target_qps: float | None = None
    """Rate of Poisson arrivals; None if each request waited for the one before."""

    @property
    def saturated(self) -> bool:
        """Whether requests arrived faster than they were answered."""
        if self.target_qps is None:
            return False
        # A short Poisson schedule may be slower than its target rate by chance, so the rate at
        # which requests really arrived is what the answers are compared with.
        arrived = self.latency.arrived_qps or self.target_qps
        return self.latency.unanswered > 0 or self.latency.qps < _MIN_ANSWERED_FRACTION * arrived

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        latency = self.latency
        return {
            "scenario": self.scenario,
            "state": self.state,
            "shape": self.shape,
            "scored": self.scored,
            "latency_us": latency.us,
            "bound_us": latency.bound_us or {},
            "curve": [list(point) for point in latency.curve],
            "queries": latency.queries,
            "requests": latency.samples or latency.queries,
            "unanswered": latency.unanswered,
            "seconds": latency.seconds,
            "target_qps": self.target_qps,
            "saturated": self.saturated,
            "qps": latency.qps,
            "cpu_seconds_per_million": latency.cpu_seconds_per_million,
            "cpu_percent": latency.cpu_percent,
            "pss_bytes": latency.pss_bytes,
            "joules": latency.joules,
        }


@dataclass(frozen=True)
class MaxThroughput:
    """The highest rate of Poisson arrivals that was shown to keep p99 within a bound."""

    p99_us: float
    confidence: float
    qps: float | None
    """Requests per second; None if no rate was shown to keep the bound."""
    trials: tuple[tuple[Row, bool], ...]
    """Every rate that was tried, and whether it kept the bound."""

    @property
    def min_queries(self) -> int:
        """Number of queries that can show that p99 is within the bound, if none exceeds it."""
        return math.ceil(math.log(1 - self.confidence) / math.log(0.99))

    def too_short(self) -> Row | None:
        """Return the slowest trial if it kept p99 within the bound with too few queries to show it.

        None if a rate was found, or if p99 really exceeds the bound at every rate.
        """
        if self.qps is not None or not self.trials:
            return None
        slowest, _ = min(self.trials, key=lambda trial: trial[0].target_qps or 0.0)
        within = slowest.latency.us["p99"] <= self.p99_us and not slowest.saturated
        return slowest if within else None

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON values."""
        return {
            "p99_us": self.p99_us,
            "confidence": self.confidence,
            "qps": self.qps,
            "trials": [row.to_json() | {"holds": holds} for row, holds in self.trials],
        }


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """The result of a run. Fields that only a bundle has are None or empty for other systems."""

    bundle: dict[str, Any]
    """Description of the system: name, history length and, for a bundle, its sizes."""
    config: BenchConfig
    machine: Machine
    noise: Noise
    startup: Startup | None = None
    files: dict[str, int] | None = None
    """Bytes by group of files."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What a reader should know about the measurements, one sentence each."""
    max_throughput: MaxThroughput | None = None
    cost_estimate: CostEstimate | None = None
    bandwidth: float | None = None
    """Bytes per second that one core reads and writes when it copies memory."""
    compression: tuple[dict[str, Any], ...] = ()
    """Compressed models that were compared when the bundle was made: quality, latency, bytes."""

    @property
    def bytes(self) -> int | None:
        """Size of the bundle in bytes."""
        return None if self.files is None else sum(self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; the schema is ``result.schema.json``."""
        return {
            "kind": "MLPerf-style, unofficial",
            "version": VERSION,
            "bundle": self.bundle,
            "config": self.config.to_json(),
            "machine": self.machine.to_json(),
            "noise": self.noise.to_json(),
            "startup": None if self.startup is None else self.startup.to_json(),
            "files": self.files,
            "bytes": self.bytes,
            "rows": [row.to_json() for row in self.rows],
            "copy_bytes_per_second": self.bandwidth,
            "bill": None if self.cost_estimate is None else self.cost_estimate.to_json(),
            "peak": None if self.max_throughput is None else self.max_throughput.to_json(),
            "compression": list(self.compression),
            "notes": list(self.notes),
        }
