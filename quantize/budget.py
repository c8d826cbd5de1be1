"""Limits of a compressed model, parsed from text: quality to retain, latency and size."""

from __future__ import annotations

import math
import re
import sys
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
    """The quality to retain, as ``ndcg@10>=99.5%`` of the original's.

    Attributes:
        metric: "ndcg", "hr" or "mrr".
        k: the cut-off of the metric.
        share: the ratio to the original's metric, above 0 and at most 1.
    """

    metric: str = "ndcg"
    k: int = 10
    share: float = 0.995

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"a budget must retain more than 0 % and at most 100 % of a metric, "
                f"not {100 * self.share:g} %"
            )
        if self.k < 1:
            raise ValueError(f"the cut-off of a metric must be at least 1, not {self.k}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse ``METRIC@K>=SHARE``, or the share of NDCG@10 alone: 99.5% or 0.995.

        Raises ValueError if the text is neither.
        """
        match = _METRIC.fullmatch(text.strip())
        metric, k, share = match.groups() if match else ("ndcg", "10", text)
        number = share.strip().removesuffix("%")
        unit = 100 if share.strip().endswith("%") else 1
        try:
            value = float(number) / unit
        except ValueError:
            raise ValueError(
                f"{text!r:.80} is not a valid budget: write it as ndcg@10>=99.5%; "
                f"metrics: {', '.join(METRICS)}"
            ) from None
        return cls(metric, int(k), value)

    @property
    def name(self) -> str:
        """The metric with its cut-off, such as ``ndcg@10``."""
        return f"{self.metric}@{self.k}"

    def __str__(self) -> str:
        return f"{self.name}>={100 * self.share:g}%"


@dataclass(frozen=True)
class Target:
    """The latency that a request of 100 candidates may take, as ``p99<=1ms``.

    Attributes:
        percentile: "p50", "p90" or "p99".
        us: the limit in microseconds.
    """

    percentile: str
    us: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse ``p50|p90|p99<=NUMBER us|ms``. Raises ValueError if the text is anything else."""
        match = _TARGET.fullmatch(text.strip())
        if not match or not 0 < float(match[2]) < math.inf:
            raise ValueError(f"{text!r:.80} is not a valid latency target: write it as p99<=1ms")
        percentile, number, unit = match.groups()
        return cls(percentile, float(number) * _MICROSECONDS[unit])

    def __str__(self) -> str:
        return f"{self.percentile}<={self.us:g}us"


def parse_bytes(text: str) -> int:
    """Parse a size in bytes: 5MB, 600kB, 1.5MiB or a plain number.

    Raises ValueError if the text is not a size of at least one byte.
    """
    match = _BYTES.fullmatch(text.strip())
    number, prefix, binary = match.groups() if match else ("0", "", "")
    size = float(number) * (1024 if binary else 1000) ** _POWERS[prefix]
    if not 1 <= size <= sys.maxsize:
        raise ValueError(f"{text!r:.80} is not a valid size: write it as 5MB")
    return int(size)
