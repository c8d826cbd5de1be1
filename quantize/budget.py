"""What a compressed model must keep and may cost, read from the words a user writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlrec_edge.core.metrics import METRICS

PERCENTILES = ("p50", "p90", "p99")
_METRIC = re.compile(rf"({'|'.join(METRICS)})@(\d+)\s*>=\s*(.+)")
_NUMBER = r"(\d+(?:\.\d+)?)"
_TARGET = re.compile(rf"({'|'.join(PERCENTILES)})\s*<=\s*{_NUMBER}\s*(us|ms)")
_BYTES = re.compile(rf"{_NUMBER}\s*([kMG]?)(i?)B?")
_MICROSECONDS = {"us": 1.0, "ms": 1000.0}
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3}


@dataclass(frozen=True)
class Budget:
    """The share of a ranking metric at ``k`` that must stay: ``ndcg@10>=99.5%``."""

    metric: str = "ndcg"
    k: int = 10
    share: float = 0.995

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"a budget keeps more than 0 and at most 100 % of a metric, not {100 * self.share:g} %"
            )
        if self.k < 1:
            raise ValueError(f"a metric looks at 1 item or more, not {self.k}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``METRIC@K>=SHARE`` or a share of NDCG@10 alone, as 99.5% or 0.995. Raises ValueError."""
        found = _METRIC.fullmatch(text.strip())
        metric, k, share = found.groups() if found else ("ndcg", "10", text)
        try:
            value = float(share.strip().removesuffix("%")) / (
                100 if share.strip().endswith("%") else 1
            )
        except ValueError:
            known = ", ".join(METRICS)
            raise ValueError(
                f"{text!r} is no budget: write it as ndcg@10>=99.5%; metrics: {known}"
            ) from None
        return cls(metric, int(k), value)

    @property
    def name(self) -> str:
        """Name the metric, as ``ndcg@10``."""
        return f"{self.metric}@{self.k}"

    def __str__(self) -> str:
        return f"{self.name}>={100 * self.share:g}%"


@dataclass(frozen=True)
class Target:
    """A latency that a request of 100 candidates may take: ``p99<=1ms``."""

    percentile: str
    us: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``p50|p90|p99<=NUMBER us|ms``. Raises ValueError."""
        found = _TARGET.fullmatch(text.strip())
        if not found or not float(found[2]) > 0:
            raise ValueError(f"{text!r} is no target: write it as p99<=1ms")
        percentile, number, unit = found.groups()
        return cls(percentile, float(number) * _MICROSECONDS[unit])

    def __str__(self) -> str:
        return f"{self.percentile}<={self.us:g}us"


def parse_bytes(text: str) -> int:
    """Read 5MB, 600kB, 1.5MiB or a plain number. Raises ValueError."""
    found = _BYTES.fullmatch(text.strip())
    number, prefix, binary = found.groups() if found else ("0", "", "")
    size = int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix])
    if not size:
        raise ValueError(f"{text!r} is no size: write it as 5MB")
    return size
