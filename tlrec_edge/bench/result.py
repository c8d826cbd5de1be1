"""What a run of the latency lab found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.cost_estimate import CostEstimate
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.bench.machine import Machine
from tlrec_edge.bench.noise import Noise
from tlrec_edge.bench.startup import Startup

VERSION = 1
"""Of the JSON, whose schema is ``result.schema.json``; it rises when a reader of the old one would fail."""


@dataclass(frozen=True)
class Row:
    """One measured shape of request.

    ``state``: the user's state is "encoded" within the request, or "given"; "cold": encoded, and the bundle read from
    disk.
    """

    scenario: str
    state: str
    shape: str
    scored: int
    """Candidates scored in one request."""
    latency: Latencies
    target_qps: float | None = None
    """The rate at which requests arrived; None where each waited for the one before."""

    @property
    def saturated(self) -> bool:
        """Whether requests arrived faster than they were answered."""
        if self.target_qps is None:
            return False
        return self.latency.unanswered > 0 or self.latency.qps < 0.9 * (
            self.latency.arrived_qps or self.target_qps
        )

    def to_json(self) -> dict[str, Any]:
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
    """The highest rate of Poisson arrivals shown to keep p99 within ``p99_us``; ``qps`` None: no rate was."""

    p99_us: float
    confidence: float
    qps: float | None
    trials: tuple[tuple[Row, bool], ...]
    """Every rate that was tried, and whether it kept the bound."""

    def to_json(self) -> dict[str, Any]:
        trials = [row.to_json() | {"holds": holds} for row, holds in self.trials]
        return {
            "p99_us": self.p99_us,
            "confidence": self.confidence,
            "qps": self.qps,
            "trials": trials,
        }


@dataclass(frozen=True)
class BenchResult:
    """A whole run; ``bundle`` is about the system, whatever it is. None: only a bundle has it."""

    bundle: dict[str, Any]
    config: BenchConfig
    machine: Machine
    noise: Noise
    startup: Startup | None
    files: dict[str, int] | None
    """Bytes by group of files."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    max_throughput: MaxThroughput | None = None
    cost_estimate: CostEstimate | None = None
    bandwidth: float | None = None
    """Bytes a second that one core reads and writes when it copies memory."""
    compression: tuple[dict[str, Any], ...] = ()
    """What else the compression that made the bundle tried: quality, latency and bytes."""

    @property
    def bytes(self) -> int | None:
        return None if self.files is None else sum(self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings."""
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
