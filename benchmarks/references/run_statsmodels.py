"""Clustered standard errors of statsmodels: ``python run_statsmodels.py data.npz out.npz``."""

from __future__ import annotations

import sys

import numpy as np
import statsmodels.api as sm


def ndcg(scores: np.ndarray) -> np.ndarray:
    """Return NDCG@10 of rows whose positive is column 0 and whose scores are not tied."""
    rank = 1 + (scores[:, 1:] > scores[:, :1]).sum(1)
    return np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0)


def mean_and_error(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the mean and its cluster-robust error, by regression on a constant."""
    fit = sm.OLS(values, np.ones((len(values), 1))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    return float(fit.params[0]), float(fit.bse[0])


data = np.load(sys.argv[1])
model, other = ndcg(data["scores"]), ndcg(data["other"])
mean, se = mean_and_error(model, data["row_user"])
lift, lift_se = mean_and_error(model - other, data["row_user"])
figures = {"mean": mean, "se": se, "lift": lift, "lift se": lift_se}
np.savez(sys.argv[2], **{name: np.array([value]) for name, value in figures.items()})
