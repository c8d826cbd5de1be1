"""Check the tables of the search indexes: what they promise of the candidates must be true.

The searches trust these tables. A table whose values are all valid numbers can still hide
candidates from a search, so a full verification compares every entry with the vectors that the
bundle stores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tlrec_edge.bundle.format import REMEDY
from tlrec_edge.bundle.item_vectors import item_vectors
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import BundleError
from tlrec_edge.search.ivf import DEVIATIONS
from tlrec_edge.search.prefix_bound import BIAS, EXTRA_COLUMNS, RESIDUAL_NORM, ROUNDING
from tlrec_edge.search.prefix_scan import INT8_MAX, ZERO_POINT
from tlrec_edge.types import Doubles

_CHUNK = 1 << 15
_SHARE = 0.25
"""Share of the rounding errors that a search allows for, which the tables may use up."""
_FLOAT32_ERROR = 1e-5
"""Largest relative difference of a float32 table from a value computed in float64."""
_INVERSE_ERROR = 1e-9
"""Largest entry of ``inverse @ rotation - 1``; about 1e-14 is usual."""


def check_prefix_bound(bundle: Bundle) -> None:
    """Raise BundleError unless the prefix bound holds for every candidate and every user.

    A search computes ``rotation @ user`` and allows for a stated error of each stored entry (see
    ``prefix_bound``). So the stored prefix of a candidate must be its vector under the inverse
    rotation, within that error, and its residual norm must not be too small.
    """
    rotation, mean = bundle.array("head_turn"), bundle.array("head_mean")
    step, offset = bundle.array("head_step")
    max_norm, max_bias = bundle.array("head_reach").tolist()
    columns, h = bundle.array("head_columns"), len(step) - EXTRA_COLUMNS
    inverse = _inverse(bundle, rotation)
    # An error of this size in each coordinate changes the bound of a user x by at most
    # _SHARE * ROUNDING * |x| * max_norm, because |rotation @ x| <= |rotation| |x|.
    slack = _SHARE * ROUNDING * max_norm
    slack /= max(float(np.linalg.norm(rotation, 2)) * math.sqrt(len(mean)), 1e-300)
    error = (0.5 + ROUNDING * INT8_MAX) * step + slack
    error[BIAS] += _SHARE * ROUNDING * max_bias - slack
    error[RESIDUAL_NORM] -= 0.5 * step[RESIDUAL_NORM]
    # A search takes every entry for an int8 of at least -127.
    if columns.min(initial=ZERO_POINT) < ZERO_POINT - INT8_MAX:
        raise _wrong(bundle, "head_columns", "holds the value -128, outside the range -127..127")
    for start, vectors, bias in _candidates(bundle):
        if (vectors**2).sum(1).max() > (max_norm * (1 + ROUNDING)) ** 2:
            raise _wrong(bundle, "head_reach", "is less than the length of a candidate's vector")
        if np.abs(bias).max() > max_bias * (1 + ROUNDING):
            raise _wrong(bundle, "head_reach", "is less than the bias of a candidate")
        items = vectors @ inverse - mean
        stored = columns[:, start : start + len(items)].T.astype(np.float64) - ZERO_POINT
        stored = stored * step + offset
        difference = np.empty_like(stored)
        difference[:, :h] = np.abs(items[:, :h] - stored[:, :h])
        difference[:, BIAS] = np.abs(bias - stored[:, BIAS])
        residual_norm = np.sqrt((items[:, h:] ** 2).sum(1))
        difference[:, RESIDUAL_NORM] = residual_norm - stored[:, RESIDUAL_NORM]
        if not (difference <= error).all():
            row = start + int((difference > error).any(1).argmax())
            raise _wrong(bundle, "head_columns", f"does not bound the score of candidate {row}")


def check_inverted_file(bundle: Bundle) -> None:
    """Raise BundleError unless every centroid describes the candidates of its cluster.

    The clusters divide the candidates by their order (``Bundle.open`` checks that), so no candidate
    is missing. A centroid with other values would hide its candidates from a search.
    """
    starts, centroids = bundle.array("list_starts"), bundle.array("list_centres")
    sizes = np.diff(starts)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    width = centroids.shape[1] - 1
    sums, squares, largest = np.zeros((len(sizes), width)), np.zeros(len(sizes)), 0.0
    for start, vectors, bias in _candidates(bundle):
        points = np.concatenate([vectors, bias[:, None]], 1)
        label = labels[start : start + len(points)]
        for column, values in enumerate(points.T):
            sums[:, column] += np.bincount(label, values, len(sizes))
        squares += np.bincount(label, (vectors**2).sum(1), len(sizes))
        largest = max(largest, float(np.abs(points).max()))
    mean = sums / sizes[:, None]
    deviation = np.sqrt(np.maximum(squares / sizes - (mean[:, :-1] ** 2).sum(1), 0.0))
    tolerance = _FLOAT32_ERROR * largest
    found = np.concatenate([centroids[:, :-2], centroids[:, -1:]], 1)
    if (np.abs(found - mean) > tolerance).any():
        raise _wrong(bundle, "list_centres", "does not hold the mean vectors of its clusters")
    # The deviation of scores for a user vector of length 1 is at most that of the vectors.
    spread, most = centroids[:, -2], DEVIATIONS * deviation * (1 + _FLOAT32_ERROR) + tolerance
    if (spread < 0).any() or (spread > most).any():
        raise _wrong(bundle, "list_centres", "holds deviations that its clusters do not have")


def _inverse(bundle: Bundle, rotation: Doubles) -> Doubles:
    try:
        inverse = np.linalg.inv(rotation)
        error = float(np.abs(inverse @ rotation - np.eye(len(rotation))).max())
    except np.linalg.LinAlgError:
        error = math.inf
    if not error <= _INVERSE_ERROR:
        raise _wrong(bundle, "head_turn", "is not an invertible matrix")
    return np.asarray(inverse)


def _candidates(bundle: Bundle) -> Iterator[tuple[int, Doubles, Doubles]]:
    """Yield the first row, the vectors (n, D) and the biases (n,) of the candidates, in chunks."""
    rows, scale = bundle.array("candidate_rows"), bundle.array("candidate_scale")
    vectors, bias = item_vectors(bundle.shape.candidate_format, rows, scale), "candidate_bias"
    for start in range(0, len(rows), _CHUNK):
        stop = min(start + _CHUNK, len(rows))
        yield start, vectors(start, stop), bundle.array(bias)[start:stop].astype(np.float64)


def _wrong(bundle: Bundle, name: str, problem: str) -> BundleError:
    return BundleError(f"{bundle.path / name}.npy {problem}; {REMEDY}")
