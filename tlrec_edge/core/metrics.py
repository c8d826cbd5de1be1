"""Ranking metrics, their means over rows and over users, and standard errors clustered by user."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.types import Bools, Doubles, Scores

Integers = NDArray[np.integer]
RESAMPLED_AT_ONCE = 2**14
"""Number of users that one call draws for bootstrap samples."""


def rank_of_positive(scores: Scores, valid: Bools | None = None) -> Doubles:
    """Return the rank (m,) of the positive, column 0 of ``scores`` (m, 1 + k), within its row.

    A tie counts as half a rank, and NaN ranks last. ``valid`` (m, 1 + k) masks the columns to
    compare with; None compares with all of them.
    """
    clean = np.where(np.isnan(scores), -np.inf, scores)
    positive, others = clean[:, :1], clean[:, 1:]
    compared = np.ones(others.shape, bool) if valid is None else valid[:, 1:]
    above = ((others > positive) & compared).sum(1)
    tied = ((others == positive) & compared).sum(1)
    rank: Doubles = 1.0 + above + 0.5 * tied
    return rank


def _hit(rank: Doubles, k: int) -> Doubles:
    return (rank < k + 1).astype(np.float64)


def _ndcg(rank: Doubles, k: int) -> Doubles:
    return np.where(rank < k + 1, 1.0 / np.log2(rank + 1.0), 0.0)


def _mrr(rank: Doubles, k: int) -> Doubles:
    return np.where(rank < k + 1, 1.0 / rank, 0.0)


METRICS: dict[str, Callable[[Doubles, int], Doubles]] = {"ndcg": _ndcg, "hr": _hit, "mrr": _mrr}
"""Metrics by name, computed from the rank (m,) of each row's only positive; recall@k equals hr@k.

A rank halfway between k and k + 1 (tied with the next candidate) still counts as within the top k.
"""


def auc(rank: Doubles, others: Integers) -> Doubles:
    """Return the share of the ``others`` (m,) competing candidates that each positive beats."""
    beaten: Doubles = 1.0 - (rank - 1.0) / np.maximum(others, 1)
    return beaten


@dataclass(frozen=True)
class Estimate:
    """A mean over rows, and how certain it is."""

    mean: float
    se: float
    """Standard error, clustered by user; NaN if there is only one."""
    by_user: float
    """Mean over users of each user's own mean."""


def clustered_mean(values: Doubles, users: Integers) -> Estimate:
    """Return the mean of ``values`` (m,) with a cluster-robust standard error.

    The rows of one user are correlated, so the error treats them as a single draw. All figures
    are NaN if there are no rows.
    """
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"))
    _, code = np.unique(users, return_inverse=True)
    mean = float(values.mean())
    count = np.bincount(code)
    total = np.bincount(code, weights=values - mean)
    se = float(np.sqrt((total**2).sum()) / len(values)) if len(count) > 1 else float("nan")
    return Estimate(mean, se, float((np.bincount(code, weights=values) / count).mean()))


def nan_to_none(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN by None, because JSON has no NaN: a figure that was not measured is null."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in figures.items()
    }


@dataclass(frozen=True)
class Lift:
    """The paired difference between the means of two models, measured on the same rows."""

    mean: float
    se: float
    """Standard error, clustered by user."""
    low: float
    """Lower end of the 95 % bootstrap interval, resampled by user."""
    high: float
    """Upper end of the same interval."""

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` from two standard errors on, else ``no difference shown``."""
        if not self.se > 0 or abs(self.mean) < 2 * self.se:
            return "no difference shown"
        return "better" if self.mean > 0 else "worse"


def paired_lift(
    values: Doubles, over: Doubles, users: Integers, draws: int = 2000, seed: int = 0
) -> Lift:
    """Return the lift of ``values`` (m,) over ``over`` (m,); users are resampled, not rows."""
    _, code = np.unique(users, return_inverse=True)
    total = np.bincount(code, weights=values - over)
    return lift_from_totals(total, np.bincount(code), draws, seed)


def lift_json(of: str, over: str, lift: Lift) -> dict[str, Any]:
    """Return a lift in NDCG@10 of one model over another for a JSON report; NaN becomes null."""
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
    total: NDArray[Any], count: Integers, draws: int = 2000, seed: int = 0
) -> Lift:
    """Return the lift, given each user's summed difference (u,) and number of rows (u,).

    With one user the error and the interval are NaN, without any the mean is too.
    """
    nan = float("nan")
    if not len(count):
        return Lift(nan, nan, nan, nan)
    mean = float(total.sum() / count.sum())
    if len(count) == 1:
        return Lift(mean, nan, nan, nan)
    se = float(np.sqrt(((total - mean * count) ** 2).sum()) / count.sum())
    low, high = np.quantile(_resampled_means(total, count, draws, seed), [0.025, 0.975])
    return Lift(mean, se, float(low), float(high))


def _resampled_means(total: NDArray[Any], count: Integers, draws: int, seed: int) -> Doubles:
    """Return the mean over rows of each bootstrap sample of users (draws,).

    Samples are drawn in blocks that fit into the processor's cache: one call for each sample costs
    six times as much for a few hundred users. The size of a block does not change the samples.
    """
    rng, n = np.random.default_rng(seed), len(count)
    block = max(1, RESAMPLED_AT_ONCE // n)
    means = np.empty(draws)
    for start in range(0, draws, block):
        users = rng.integers(0, n, (min(block, draws - start), n))  # (samples, u)
        means[start : start + len(users)] = total[users].sum(1) / count[users].sum(1)
    return means


def gini(counts: Integers) -> float:
    """Return the Gini coefficient of the number of times each item was recommended.

    It is 0 if all items are recommended equally often, and close to 1 if a few take nearly all
    places. It is NaN if nothing was recommended.
    """
    if not counts.sum():
        return float("nan")
    ordered, n = np.sort(counts).astype(np.float64), len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def describe(
    rank: Doubles,
    others: Integers,
    users: Integers,
    ks: tuple[int, ...] = (10,),
) -> dict[str, float]:
    """Return the mean over rows of every metric at every cut-off in ``ks``, by name.

    NDCG also comes with its standard error (``.se``) and its mean over users (``.by_user``).
    ``recall@k.by_user`` is the mean over users of the share of their positives in the top k.
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
