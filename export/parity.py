"""Measure how much the scores of a written bundle differ from its torch model's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.types import Floats

from .source import ExportSource


@dataclass(frozen=True)
class Parity:
    """How much a bundle's scores differ from its torch model's, for sampled users.

    All candidates are scored. The float path is compared with the torch model, and the
    deterministic path with the float path. If the tables are float32, the bundle has only the float
    path, and the last three attributes are None.

    Attributes:
        users: Number of users compared; 0 if no user has a history.
        max_error: Largest difference of a float score from torch.
        top10_overlap: Mean share of torch's ten best candidates that the float path finds too.
        exact_max_error: Largest difference of a deterministic score from the float score.
        exact_rms_share: Root mean square of these differences, as a share of the scores' standard
            deviation.
        exact_bound: Upper bound of ``exact_max_error`` for users whose vectors fit the scales; the
            runtime counts the others as ``clipped_users``.
    """

    users: int
    max_error: float
    top10_overlap: float
    exact_max_error: float | None
    exact_rms_share: float | None
    exact_bound: float | None


def measure_parity(source: ExportSource, bundle: Path) -> Parity:
    """Compare a written bundle with the torch model on all candidates of the sampled users.

    Args:
        source: The model, its dataset and the sampled users.
        bundle: Folder of the bundle.
    """
    users = source.parity_users
    if not len(users):
        return Parity(0, 0.0, 1.0, None, None, None)
    expected = source.model.scorer(source.dataset, source.task)(users)
    found = _bundle_scores(source, bundle)
    max_error = float(np.abs(found.floats - expected).max())
    overlap = _top_overlap(expected, found.floats)
    if found.deterministic is None:
        return Parity(len(users), max_error, overlap, None, None, None)
    error = found.deterministic - found.floats
    # Only differences between a user's candidates rank them: a user's mean score is left out.
    deviation = float(np.std(found.floats - found.floats.mean(1, keepdims=True)))
    rms_share = float(np.sqrt(np.mean(error**2)) / deviation) if deviation > 0 else 0.0
    largest = float(np.abs(error).max())
    bound = _rounding_bound(bundle)
    return Parity(len(users), max_error, overlap, largest, rms_share, bound)


class _Scores(NamedTuple):
    """Scores (u, C) of both paths; the deterministic one is None without quantized tables."""

    floats: Floats
    deterministic: Floats | None


def _bundle_scores(source: ExportSource, bundle: Path) -> _Scores:
    names, histories = source.candidate_names, source.histories(source.parity_users)
    with Recommender.open(bundle, deterministic=False) as rec:
        floats = np.stack([rec.score(history, names) for history in histories])
    with Recommender.open(bundle) as rec:
        if not rec.deterministic:
            return _Scores(floats, None)
        return _Scores(floats, np.stack([rec.score(history, names) for history in histories]))


def _top_overlap(expected: NDArray[np.floating], found: Floats, k: int = 10) -> float:
    """Return the mean share of each user's k best candidates that both rankings have."""
    k = min(k, expected.shape[1])
    both = zip(_top(expected, k), _top(found, k), strict=True)
    return float(np.mean([len(a & b) / k for a, b in both]))


def _top(scores: NDArray[np.floating], k: int) -> list[set[int]]:
    return [set(np.argsort(-row, kind="stable")[:k].tolist()) for row in scores]


def _rounding_bound(path: Path) -> float:
    """Return the most that rounding a user vector can move a score.

    Rounding moves an entry by half a step at most, and the score by that times the candidate's
    entry: the bound of a candidate is the sum over its entries, and the largest one counts.
    """
    bundle = Bundle.open(path, verify="none")
    rows, form = bundle.array("candidate_rows"), bundle.shape.candidate_format
    scale = bundle.array("candidate_scale").astype(np.float64)
    weights, steps = (abs(bundle.scoring.weights[0]), 1.0), bundle.manifest["user_scale"]
    bound = 0.0
    for i in (0, 1):  # two-tower block, low-rank block
        entries = np.abs(form.values(rows, i).astype(np.float64)).sum(1)
        bound = bound + entries * scale[:, i] * weights[i] * steps[i] / 2
    return float(np.max(bound))
