"""What a bundle costs: measured where bundles are made, weighed where models are compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOWDOWN_TOLERANCE = 1.1
"""A model may take this many times as long as its original before it counts as slower: what noise alone can do."""


@dataclass(frozen=True)
class Cost:
    """Bytes of a bundle, and by percentile the microseconds of a request: a history, encoded, and 100 scores.

    ``fault``: why there is no such bundle, so that neither is known.
    """

    bytes: int
    us: Mapping[str, float] = field(default_factory=dict)
    fault: str | None = None
