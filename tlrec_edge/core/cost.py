"""The serving cost of a bundle: measured by the export, weighed by the compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOWDOWN_TOLERANCE = 1.1
"""A model counts as slower than its original only above this ratio: noise explains less."""


@dataclass(frozen=True)
class Cost:
    """Size of a bundle and the latency of one request: encode a history and score 100 items."""

    bytes: int
    us: Mapping[str, float] = field(default_factory=dict)
    """Latency in microseconds by percentile: "p50", "p99"."""
    error: str | None = None
    """Why the bundle could not be made, in which case nothing was measured; None if it was."""
