"""What a run of the latency lab found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.bench.machine import Machine, Noise
from tlrec_edge.bench.startup import Startup


@dataclass(frozen=True)
class Row:
    """One measured shape of request. ``state``: the user's state is "encoded" within the request, or "given"."""

    scenario: str
    state: str
    shape: str
    scored: int
    """Candidates scored in one request."""
    latency: Latencies

    def to_json(self) -> dict[str, Any]:
        seen = self.latency
        return {
            "scenario": self.scenario,
            "state": self.state,
            "shape": self.shape,
            "scored": self.scored,
            "latency_us": seen.us,
            "queries": seen.queries,
            "seconds": seen.seconds,
            "qps": seen.qps,
            "cpu_seconds_per_million": seen.cpu_seconds_per_million,
        }


@dataclass(frozen=True)
class BenchResult:
    """A whole run."""

    bundle: dict[str, Any]
    config: BenchConfig
    machine: Machine
    noise: Noise
    startup: Startup
    files: dict[str, int]
    """Bytes by group of files."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings."""
        return {
            "kind": "MLPerf-style, unofficial",
            "bundle": self.bundle,
            "config": self.config.to_json(),
            "machine": asdict(self.machine) | {"flags": list(self.machine.flags)},
            "noise": self.noise.to_json(),
            "startup": self.startup.to_json(),
            "files": self.files,
            "bytes": self.bytes,
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
        }
