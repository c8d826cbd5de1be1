"""Settings and results of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.export import Parity
from tlrec_edge.quantize import Point
from tlrec_edge.runtime.recommender import Recommendations
from tlrec_edge.train.edge_model import EdgeModel


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo.

    Args:
        target: Department to transfer to; the model is pretrained on all others.
        size: Size of the history encoder.
        min_buyers: Minimum number of households that bought a product, for it to be in the
            vocabulary of histories.
        folds: Number of folds of new shoppers; None runs all of them.
        bench_seconds: Duration of each run of the benchmark.
        seed: Seed of every random choice.
    """

    target: str = "NUTRITION"
    size: str = "fast"
    min_buyers: int = 10
    folds: int | None = None
    bench_seconds: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Fold:
    """The evaluation of one fold of users, and the model that is shipped if it is that of all."""

    models: Mapping[str, EdgeModel]
    evaluation: Evaluation
    dropped: Mapping[str, int]
    """Number of held-out rows that are not test rows, by reason."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Results of the demo."""

    new_users: Evaluation
    warm: Evaluation
    """Shoppers who bought in the target before."""
    new_dropped: Mapping[str, int]
    """Held-out rows of new shoppers that are not test rows, by reason."""
    warm_dropped: Mapping[str, int]
    points: tuple[Point, ...]
    """Compressed models that were compared."""
    judged_on: str
    """Whether the compared models had learned the rows they were compared on."""
    parity: Parity
    sizes: Mapping[str, int]
    """Bytes of each bundle."""
    bench: Mapping[str, dict[str, Any]]
    """Benchmark result of each bundle, as JSON values."""
    shopper: str
    """Household that gets the recommendations."""
    new: bool
    """Whether that household never bought in the target."""
    bought: tuple[str, ...]
    """Names of the products it bought last."""
    best: Recommendations
    buyers: tuple[int, ...]
    """Households that bought each of them: products of one name differ in what nobody recorded."""
    seconds: Mapping[str, float]
    """Seconds of each stage."""
    report: Path
    """The page."""
