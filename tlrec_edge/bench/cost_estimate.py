"""What a load costs, from a price an hour and a measured rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CostEstimate:
    """``qps``: requests a second of one machine, within ``p99_us`` or, where that is None, without any bound.

    ``price``: of one machine and one hour, in whatever money; ``scored``: candidates in a request; ``target_load``:
    requests a second that all machines are to serve. Each None where it was not said.
    """

    qps: float
    p99_us: float | None
    scored: int
    price: float | None = None
    target_load: float | None = None

    @property
    def per_million_requests(self) -> float | None:
        return None if self.price is None else self.price / 3600 / self.qps * 1e6

    @property
    def per_million_scores(self) -> float | None:
        found = self.per_million_requests
        return None if found is None else found / self.scored

    @property
    def machines(self) -> int | None:
        """Machines that serve ``target_load``; None without a bound of latency."""
        return (
            None
            if self.target_load is None or self.p99_us is None
            else math.ceil(self.target_load / self.qps)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "qps": self.qps,
            "p99_us": self.p99_us,
            "price_per_hour": self.price,
            "wanted_qps": self.target_load,
            "per_million_requests": self.per_million_requests,
            "per_million_scores": self.per_million_scores,
            "machines": self.machines,
        }
