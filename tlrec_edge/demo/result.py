"""What a run of the demo is asked for, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.evaluation.evaluate import Evaluation
from tlrec_edge.export import Parity
from tlrec_edge.quantize import Point
from tlrec_edge.runtime.recommender import Recommendations
from tlrec_edge.train.edge_model import EdgeModel


@dataclass(frozen=True)
class DemoConfig:
    """``min_buyers`` leaves rarer products out of the histories' vocabulary; ``folds`` None runs all of them."""

    target: str = "NUTRITION"
    size: str = "fast"
    min_buyers: int = 10
    folds: int | None = None
    bench_seconds: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Fold:
    """One way of dividing users: the models made for it, and how all of them rank on the test rows.

    ``dropped`` counts the held-out rows that are no test, by reason.
    """

    models: Mapping[str, EdgeModel]
    evaluation: Evaluation
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo found; ``report`` is the page, ``new`` says that the shopper never bought in the target."""

    new_users: Evaluation
    warm: Evaluation
    new_dropped: Mapping[str, int]
    warm_dropped: Mapping[str, int]
    points: tuple[Point, ...]
    parity: Parity
    sizes: Mapping[str, int]
    bench: Mapping[str, dict[str, Any]]
    shopper: str
    new: bool
    bought: tuple[str, ...]
    best: Recommendations
    seconds: Mapping[str, float]
    report: Path
