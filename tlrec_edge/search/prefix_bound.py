"""Exact top-k by a partial inner product bound: a short int8 prefix of each item limits its score.

A score is the inner product of a user vector x and an item vector z, plus the item's bias and its
item-item contribution. A rotation of both vectors does not change their product; it is chosen so
that the first h of D coordinates carry most of it. The Cauchy-Schwarz inequality bounds the rest:

    x . z <= x[:h] . z[:h] + |x[h:]| |z[h:]|

A prefix holds z[:h], the bias and the residual norm |z[h:]|, quantized to int8. The slack, a
constant per user, makes up for the largest possible rounding error. Items whose bound reaches the
k-th best score found so far are scored in full, so the answer equals that of a full scan. The idea
is that of RecJPQPrune (arXiv 2505.00560), applied to rotated vectors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import PREFIX_SCAN, SCAN_BLOCK
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.topk import absent, lower_bound, top_k_of
from tlrec_edge.search.index import ScoreFunction, TopK
from tlrec_edge.search.prefix_scan import INT8_MAX, PrefixScan
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Bytes, Doubles, Floats, Indices, Ints

BIAS, RESIDUAL_NORM = -2, -1
"""The last two columns of a prefix, after the h rotated coordinates."""
EXTRA_COLUMNS = 2

_EMPTY = np.zeros(0)
_PRODUCT_LIMIT = 2.0**30
_MAX_SURVIVORS = 1 / 4
"""Share of the candidates beyond which a full scan is as fast as scoring the survivors."""
ROUNDING = 8e-6
"""Bound of float32 rounding errors, as a share of the largest possible score; dozens of times what
was observed."""


class _Query(NamedTuple):
    """A user's side of the bound: a score without its item-item contribution is at most
    ``step * (entries . prefix) + slack``."""

    entries: NDArray[np.int8]
    """Integers (h + 2,)."""
    step: float
    slack: float


class PrefixBound:
    """The prefixes of one bundle. Safe to use from many threads."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        array = bundle.array
        self._columns: Bytes = array("head_columns")
        self._count = bundle.shape.candidates
        self._rotation, self._mean = array("head_turn"), array("head_mean")
        self._step, self._offset = array("head_step")
        self._max_norm, self._max_bias = array("head_reach").tolist()
        self._ones = np.ones(len(self._step))
        # Rounding moved an entry by half a step at most; the residual norm was only rounded up.
        self._entry_error = np.full(len(self._step), 0.5 + ROUNDING * INT8_MAX)
        self._entry_error[RESIDUAL_NORM] -= 0.5
        graph = bundle.read(PREFIX_SCAN)
        self.scan = PrefixScan(graph, str(bundle.path / PREFIX_SCAN), self._columns, threads)

    def search(
        self, state: UserState, k: int, excluded: Indices, score: ScoreFunction
    ) -> TopK | None:
        """Return the k best candidates; None if too many survive the bound or no bound holds."""
        query = self._query(state)
        if query is None or (scanned := self.scan(query.entries)) is None:
            return None
        bounds = _Bounds(*scanned, state, query, self._count)
        # First pass: score the candidates with the highest bounds. Their k-th best score is a lower
        # limit of the answer's.
        first = bounds.survivors(bounds.threshold_of_best(2 * k + 32 + len(excluded)))
        if len(first) > self._count * _MAX_SURVIVORS:
            return None
        _, scores = top_k_of(first, score(first), k, excluded)
        if len(scores) < k:
            return None
        # Second pass: score every candidate whose bound reaches that limit.
        remaining = bounds.survivors(bounds.threshold_of_score(float(scores[-1])))
        if len(remaining) > self._count * _MAX_SURVIVORS:
            return None
        return TopK(*top_k_of(remaining, score(remaining), k, excluded))

    def _query(self, state: UserState) -> _Query | None:
        """Return the part of the bound that depends on the user, None if it is NaN or infinite."""
        user: Floats | Doubles = state.deep * float(state.deep_scale)
        if len(state.interest):
            user = np.concatenate([user, state.interest * float(state.interest_scale)])
        rotated = self._rotation.dot(user)
        h = len(self._step) - EXTRA_COLUMNS
        factors = np.empty(h + EXTRA_COLUMNS)
        factors[:h] = rotated[:h]
        factors[BIAS] = 1.0
        factors[RESIDUAL_NORM] = math.sqrt(rotated[h:].dot(rotated[h:]))
        unrounded = factors * self._step
        magnitude = np.abs(unrounded)
        step = max(float(magnitude[magnitude.argmax()]) / INT8_MAX, 1e-30)
        entries = np.rint(unrounded / step)
        center = float(rotated.dot(self._mean) + factors.dot(self._offset))
        # The largest error of quantizing prefixes and query, and of scoring in float32.
        error = magnitude.dot(self._entry_error)
        error += INT8_MAX * np.abs(unrounded - entries * step).dot(self._ones)
        max_product = math.sqrt(user.dot(user)) * self._max_norm
        error += ROUNDING * (abs(center) + max_product + self._max_bias)
        slack = center + float(error)
        return _Query(entries.astype(np.int8), step, slack) if math.isfinite(slack) else None


class _Bounds:
    """Upper bounds of all candidates' scores for one user, in units of the query's step."""

    def __init__(
        self, products: Ints, maxima: Ints, state: UserState, query: _Query, count: int
    ) -> None:
        self._products, self._maxima, self._count = products, maxima, count
        self._step, self._slack = query.step, query.slack
        self._boosted = state.wide.positive_columns
        """Candidates with a positive item-item contribution, which no prefix covers; ascending."""
        self._boosted_bounds: Doubles = _EMPTY
        if len(self._boosted):
            columns, contributions = state.wide.summed
            self._slack += ROUNDING * float(contributions.max())
            boosts = contributions.take(columns.searchsorted(self._boosted)).astype(np.float64)
            steps = np.ceil(boosts / query.step)
            self._boosted_bounds = products.take(self._boosted).astype(np.float64) + steps

    def threshold_of_best(self, k: int) -> int:
        """Return a bound that at least k candidates reach."""
        return _floor_clipped(lower_bound(self._products[: self._count], k, self._maxima))

    def threshold_of_score(self, score: float) -> int:
        """Return the bound that every candidate of at least this score reaches."""
        return _floor_clipped((score - self._slack) / self._step)

    def survivors(self, threshold: int) -> Indices:
        """Return the positions of the candidates whose bound is at least ``threshold``."""
        at = self._scan_survivors(threshold)
        if not len(self._boosted):
            return at
        boosted = self._boosted[self._boosted_bounds >= threshold]
        return np.concatenate([at[absent(at, self._boosted)], boosted])

    def _scan_survivors(self, threshold: int) -> Indices:
        # Block maxima first: nearly all blocks are skipped without reading their products.
        blocks = (self._maxima >= threshold).nonzero()[0]
        products = self._products.reshape(-1, SCAN_BLOCK).take(blocks, axis=0)
        at = (products.ravel() >= threshold).nonzero()[0]
        positions: Indices = (blocks * SCAN_BLOCK).take(at // SCAN_BLOCK) + at % SCAN_BLOCK
        return positions[: positions.searchsorted(self._count)]  # without the last block's padding


def _floor_clipped(threshold: float) -> int:
    """Round a threshold down to an int32, clipped to the limit; NaN becomes the lowest value."""
    return math.floor(max(-_PRODUCT_LIMIT, min(threshold, _PRODUCT_LIMIT)))
