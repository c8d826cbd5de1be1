"""The table of a compression search: one point per model, with its figures and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlrec_edge.core.cost import Cost
from tlrec_edge.core.metrics import nan_to_none
from tlrec_edge.train.edge_model import EdgeModel

from .config import CompressConfig
from .retained_quality import RetainedQuality
from .search_space import ORIGINAL


@dataclass(frozen=True)
class Point:
    """One model of the search.

    Attributes:
        name: the pruning step and the storage format.
        retained: the quality it retains on the validation rows.
        bytes: the size of its bundle, estimated if the bundle was not measured; None if the step
            was not tried.
        us: microseconds per request by percentile; None if it was not timed.
        pareto_optimal: no other model is at least as good, as small and as fast, and better in one.
        chosen: whether it is the result of the search.
        reason: why it was chosen or rejected.
    """

    name: str
    retained: RetainedQuality
    bytes: int | None
    us: Mapping[str, float] | None
    pareto_optimal: bool
    chosen: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a figure that could not be measured is None."""
        return nan_to_none(
            {
                "step": self.name,
                "value": self.retained.value,
                "ratio": self.retained.ratio,
                "se": self.retained.se,
                "low": self.retained.low,
                "bytes": self.bytes,
                "us": dict(self.us) if self.us else None,
                "front": self.pareto_optimal,
                "kept": self.chosen,
                "why": self.reason,
            }
        )


@dataclass(frozen=True)
class Variant:
    """A model of the search while it runs; ``rejection`` is the reason if it can't be chosen.

    ``step`` and ``storage_format`` make it from the original.
    """

    name: str
    model: EdgeModel
    retained: RetainedQuality
    cost: Cost
    rejection: str | None = None
    storage_format: str = ""
    step: str = ORIGINAL


def make_points(
    variants: list[Variant], best: Variant | None, config: CompressConfig, judged: bool
) -> list[Point]:
    """Return one point per model; ``judged`` is False if there are no validation rows."""
    pareto_front = _pareto_front(variants)
    points = []
    for variant in variants:
        chosen = variant is best
        rejections = (
            [variant.rejection] if variant.rejection else exceeded_limits(variant.cost, config)
        )
        if rejections:
            reason = "; ".join(rejections)
        elif chosen:
            reason = "the smallest that keeps the budget"
        else:
            reason = "keeps the budget, but is larger than the chosen one"
        if not judged:
            reason = f"quality not measured, no validation rows: {reason}"
        points.append(
            Point(
                name=variant.name,
                retained=variant.retained,
                bytes=variant.cost.bytes or None,
                us=variant.cost.us or None,
                pareto_optimal=variant.name in pareto_front,
                chosen=chosen,
                reason=reason,
            )
        )
    return points


def exceeded_limits(cost: Cost, config: CompressConfig) -> list[str]:
    """Name the limits that a cost exceeds."""
    limits = []
    if config.max_bytes is not None and cost.bytes > config.max_bytes:
        limits.append(f"has {cost.bytes:,} bytes, more than {config.max_bytes:,}")
    if config.target is not None and cost.us[config.target.percentile] > config.target.us:
        us = cost.us[config.target.percentile]
        limits.append(f"takes {us:.0f} us, the target is {config.target}")
    return limits


def _pareto_front(variants: Sequence[Variant]) -> set[str]:
    """Return the names of the variants that no other dominates in quality, bytes and latency."""
    judged = [variant for variant in variants if np.isfinite(variant.retained.ratio)]
    if any(variant.cost.us for variant in judged):  # sizes of those not timed are estimates
        judged = [variant for variant in judged if variant.cost.us]
    costs = np.array([(-v.retained.ratio, v.cost.bytes, v.cost.us.get("p50", 0.0)) for v in judged])
    front = set()
    for i, variant in enumerate(judged):
        others = np.delete(costs, i, 0)
        if not any((other <= costs[i]).all() and (other < costs[i]).any() for other in others):
            front.add(variant.name)
    return front
