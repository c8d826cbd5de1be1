"""What a model costs: bytes by its arrays, or bytes and microseconds measured as a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlrec_edge.core.cost import SLOWDOWN_TOLERANCE, Cost
from tlrec_edge.train.bundle_arrays import stored_arrays
from tlrec_edge.train.edge_model import EdgeModel

from .graphs import graph_bytes

CostMeasurement = Callable[[Sequence[EdgeModel]], list[Cost]]
"""Measure models as bundles, interleaved in one run."""


def served_bytes(model: EdgeModel) -> int:
    """Return the stored bytes of the arrays and graph weights that scoring reads."""
    arrays = stored_arrays(model).values()
    return int(sum(array.nbytes for array in arrays) + graph_bytes(model.net))


def too_slow(cost: Cost, original_p50: float) -> str | None:
    """Return why a cost is too slow next to the original's median, or None if it is not."""
    p50 = cost.us["p50"]
    if p50 <= SLOWDOWN_TOLERANCE * original_p50:
        return None
    return f"takes {p50 / original_p50:.2f} times as long as the original on this CPU"
