"""The cost of a load, from the price of a machine and its measured throughput."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CostEstimate:
    """Cost and number of machines for a load. Amounts that were not given are None."""

    qps: float
    """Requests per second of one machine."""
    p99_us: float | None
    """Bound of p99 in microseconds that ``qps`` keeps; None if ``qps`` is plain throughput."""
    scored: int
    """Candidates in a request."""
    price: float | None = None
    """Price of one machine per hour, in any currency."""
    target_load: float | None = None
    """Requests per second that all machines together must serve."""

    @property
    def per_million_requests(self) -> float | None:
        """Cost of a million requests."""
        return None if self.price is None else self.price / 3600 / self.qps * 1e6

    @property
    def per_million_scores(self) -> float | None:
        """Cost of a million scored candidates."""
        per_request = self.per_million_requests
        return None if per_request is None else per_request / self.scored

    @property
    def machines(self) -> int | None:
        """Number of machines for ``target_load``.

        None without a latency bound: at full throughput a queue never empties.
        """
        if self.target_load is None or self.p99_us is None:
            return None
        return math.ceil(self.target_load / self.qps)

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {
            "qps": self.qps,
            "p99_us": self.p99_us,
            "price_per_hour": self.price,
            "wanted_qps": self.target_load,
            "per_million_requests": self.per_million_requests,
            "per_million_scores": self.per_million_scores,
            "machines": self.machines,
        }
