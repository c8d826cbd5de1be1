"""Ranking metrics from ranks, their means over rows and users, and standard errors clustered by user."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rank_of_positive(scores: NDArray[np.floating], valid: NDArray[np.bool_] | None = None) -> Array:
    """Rank column 0 of ``scores`` (m, 1 + k) among its row; ties count half, NaN ranks last.

    ``valid`` (m, 1 + k) marks the columns that take part.
    """
    clean = np.where(np.isnan(scores), -np.inf, scores)
    positive, others = clean[:, :1], clean[:, 1:]
    counted = np.ones(others.shape, bool) if valid is None else valid[:, 1:]
    above = ((others > positive) & counted).sum(1)
    tied = ((others == positive) & counted).sum(1)
    rank: Array = 1.0 + above + 0.5 * tied
    return rank


def _hit(rank: Array, k: int) -> Array:
    return (rank < k + 1).astype(np.float64)


def _ndcg(rank: Array, k: int) -> Array:
    return np.where(rank < k + 1, 1.0 / np.log2(rank + 1.0), 0.0)


def _mrr(rank: Array, k: int) -> Array:
    return np.where(rank < k + 1, 1.0 / rank, 0.0)


METRICS: dict[str, Callable[[Array, int], Array]] = {"ndcg": _ndcg, "hr": _hit, "mrr": _mrr}
"""Per-row metrics of the rank of one positive. With one positive a row, recall@k equals hr@k.

A rank halfway between k and k + 1 (one tie at the border) still counts as in the top k."""


def auc(rank: Array, others: NDArray[np.integer]) -> Array:
    """Return the share of the other candidates that the positive beats."""
    beaten: Array = 1.0 - (rank - 1.0) / np.maximum(others, 1)
    return beaten


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error clustered by user (NaN for one user), and the mean over users of their means."""

    mean: float
    se: float
    by_user: float


def clustered_mean(values: Array, users: NDArray[np.integer]) -> Estimate:
    """Average rows; the standard error treats the rows of one user as one draw (cluster-robust)."""
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"))
    _, code = np.unique(users, return_inverse=True)
    mean = float(values.mean())
    count = np.bincount(code)
    total = np.bincount(code, weights=values - mean)
    se = (
        float(np.sqrt((total**2).sum()) / len(values)) if len(count) > 1 else float("nan")
    )  # one draw has no spread
    return Estimate(mean, se, float((np.bincount(code, weights=values) / count).mean()))


def nan_to_none(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN by None: what was not measured is null in JSON."""
    return {
        key: None if isinstance(v, float) and math.isnan(v) else v for key, v in figures.items()
    }


@dataclass(frozen=True)
class Lift:
    """Paired difference of means over rows: clustered standard error and a 95 % bootstrap interval over users."""

    mean: float
    se: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Say ``better`` or ``worse`` from two standard errors on, else ``no difference shown``."""
        if not self.se > 0 or abs(self.mean) < 2 * self.se:
            return "no difference shown"
        return "better" if self.mean > 0 else "worse"


def paired_lift(
    values: Array, over: Array, users: NDArray[np.integer], draws: int = 2000, seed: int = 0
) -> Lift:
    """Compare two models on the same rows; the rows of a user are resampled together."""
    _, code = np.unique(users, return_inverse=True)
    return lift_from_totals(
        np.bincount(code, weights=values - over), np.bincount(code), draws, seed
    )


def lift_json(of: str, over: str, lift: Lift) -> dict[str, Any]:
    """Return a lift as it stands in JSON; null where nothing varies."""
    return nan_to_none(
        {
            "of": of,
            "over": over,
            "ndcg@10": lift.mean,
            "se": lift.se,
            "low": lift.low,
            "high": lift.high,
            "verdict": lift.verdict,
        }
    )


def lift_from_totals(
    total: NDArray[Any], count: NDArray[np.integer], draws: int = 2000, seed: int = 0
) -> Lift:
    """Compare from each user's summed difference (u,) and number of rows (u,); NaN where fewer than two can vary."""
    nan = float("nan")
    if not len(count):
        return Lift(nan, nan, nan, nan)
    mean = float(total.sum() / count.sum())
    if len(count) == 1:
        return Lift(mean, nan, nan, nan)
    se = float(np.sqrt(((total - mean * count) ** 2).sum()) / count.sum())
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for i in range(draws):
        resampled = rng.integers(0, len(count), len(count))
        means[i] = total[resampled].sum() / count[resampled].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return Lift(mean, se, float(low), float(high))


def gini(counts: NDArray[np.integer]) -> float:
    """Return the Gini coefficient of how often each item was shown: 0 = all alike, towards 1 = a few take all."""
    if not counts.sum():
        return float("nan")
    ordered, n = np.sort(counts).astype(np.float64), len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def describe(
    rank: Array,
    others: NDArray[np.integer],
    users: NDArray[np.integer],
    ks: tuple[int, ...] = (10,),
) -> dict[str, float]:
    """Return every metric's mean over rows, with ``.se`` and ``.by_user`` beside NDCG.

    ``recall@k.by_user`` is the mean over users of the share of their positives among the first k.
    """
    result: dict[str, float] = {}
    for k in ks:
        for name, metric in METRICS.items():
            estimate = clustered_mean(metric(rank, k), users)
            result[f"{name}@{k}"] = estimate.mean
            if name == "ndcg":
                result[f"{name}@{k}.se"] = estimate.se
                result[f"{name}@{k}.by_user"] = estimate.by_user
        result[f"recall@{k}"] = result[f"hr@{k}"]
        result[f"recall@{k}.by_user"] = clustered_mean(METRICS["hr"](rank, k), users).by_user
    result["auc"] = clustered_mean(auc(rank, others), users).mean
    return result
