"""Tune the weights of a model's parts by validation NDCG, or set them without any label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple

import numpy as np

from tlrec_edge.core.metrics import METRICS, rank_of_positive
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.priors import decayed_popularity, log_popularity
from tlrec_edge.linear.ranking import (
    ALL,
    FULL_RANKING_LIMIT,
    Columns,
    EvalQueries,
    make_queries,
    row_scores,
    sample_rows,
)
from tlrec_edge.linear.tuning import beats_by_one_se, learnable_repeats
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.parts import PARTS, PartScores, ScoreWeights, weighted_sum
from tlrec_edge.train.user_histories import UserHistories
from tlrec_edge.types import Bools, Doubles, Floats, Ints, Scores

MIN_BIAS = 0.01
"""Weight of the bias, in units of one over its spread, if validation gives it 0: users without a
history are ranked by the bias alone."""
MIN_SPREAD = 1e-6
"""A part that varies less within a row ranks nothing: its weight would only magnify rounding."""
WEIGHT_GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights that the search tries, in units of one over the spread of a part."""
SIGNED_PART = PartScores._fields.index("repeat")
"""The part whose weight may be negative: some catalogues are bought again, others once."""
ROUNDS = 3
"""Passes over all parts in one coordinate ascent."""
BAGS = 8
"""Bootstrap draws of the users whose weights are averaged."""
UNTUNED_WIDE = 10.0
"""Weight of the item-item parts without validation rows; their scores are smaller than two-tower
scores."""
SPREAD_USERS = 256
"""Users whose scores measure the spread of each part."""
FOLDS = 3
"""Groups of users in ``cross_fitted_ndcg``."""

Weights = tuple[float, ...]
"""One weight for each part."""


@dataclass(frozen=True)
class TunedWeights:
    """The outcome of tuning.

    Attributes:
        weights: The weight of each part.
        half_life: Days in which a purchase comes to count half in the bias; None: the bias is the
            network's own.
        ndcg: Validation NDCG@10; NaN if no validation row was used.
    """

    weights: ScoreWeights
    half_life: float | None = None
    ndcg: float = float("nan")


def tune_score_weights(
    model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Collection[str] = tuple(PARTS)
) -> TunedWeights:
    """Tune the weights of the parts in ``use`` on the task's rows; the other parts get 0.

    A zero-shot model must not use the target's labels: its parts get equal spreads.
    """
    if mode == "zero-shot":
        return TunedWeights(_equal_spread_weights(model, dataset, task))
    sampled = sample_rows(task)
    if not len(sampled.rows):
        return TunedWeights(_untuned_weights(model, use))
    queries, parts = _part_scores(model, dataset, sampled, use)
    users = sampled.rows.user
    best = plain = fit_score_weights(parts, queries.valid, users)
    half_life = None
    biases = decayed_popularity(task) if "bias" in use else {}
    for days, bias in biases.items():
        # The other parts hardly depend on the decay, so the search starts at their weights.
        decayed = fit_score_weights(
            parts._replace(bias=queries.gather_items(bias)),
            queries.valid,
            users,
            start=plain.weights,
        )
        is_better = beats_by_one_se(decayed.values, plain.values, users)
        if decayed.ndcg > best.ndcg and is_better:
            best, half_life = decayed, days
    weights = ScoreWeights(*best.weights)
    spread = float(np.std(served_bias(model, task, half_life)))
    if "bias" in use and not weights.bias and spread >= MIN_SPREAD:
        weights = replace(weights, bias=MIN_BIAS / spread)
    return TunedWeights(weights, half_life, best.ndcg)


def _untuned_weights(model: EdgeModel, use: Collection[str]) -> ScoreWeights:
    """Return fixed weights, for data without validation rows."""
    wide = UNTUNED_WIDE if model.wide.nnz else 0.0
    weights = ScoreWeights(two_tower=1.0, wide=wide, residual=wide, bias=1.0)
    return replace(weights, **{part: 0.0 for part in PARTS if part not in use})


def _equal_spread_weights(model: EdgeModel, dataset: Dataset, task: Task) -> ScoreWeights:
    """Weight each part by one over its spread within a user; the bias counts half as much."""
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    users = np.flatnonzero(np.diff(histories.start) > 0)[:SPREAD_USERS].astype(np.int32)
    if not len(users):
        return ScoreWeights()
    columns: Columns = ALL
    if model.candidates > FULL_RANKING_LIMIT:
        drawn = np.random.default_rng(0).choice(model.candidates, FULL_RANKING_LIMIT)
        columns = drawn.astype(np.int32)
    spreads = [_spread(part) for part in model.part_scores(histories, users, columns)]
    weights = ScoreWeights(*(_inverse(spread) for spread in spreads))
    return replace(weights, repeat=0.0, bias=0.5 * weights.bias)


def _spread(scores: Scores) -> float:
    """Return the standard deviation of scores (m, n) around the mean of their row."""
    return float(np.std(scores - scores.mean(1, keepdims=True)))


def _inverse(spread: float) -> float:
    return 1.0 / spread if spread > MIN_SPREAD else 0.0


def _part_scores(
    model: EdgeModel, dataset: Dataset, task: Task, use: Collection[str]
) -> tuple[EvalQueries, PartScores]:
    """Score the task's rows by every part, (m, 1 + k); the parts not in ``use`` are 0."""
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    queries = make_queries(task, task.rows)
    scored = row_scores(lambda q: model.part_scores(histories, q.user, q.requested), task)
    named = zip(PARTS, scored, strict=True)
    parts = PartScores(*(part if name in use else np.zeros_like(part) for name, part in named))
    return queries, parts._replace(repeat=learnable_repeats(task, queries, parts.repeat))


def cross_fitted_ndcg(
    model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Collection[str]
) -> tuple[Doubles, Ints]:
    """Return NDCG@10 of each validation row, and its user, both (m,).

    Each third of the users is ranked under weights that were tuned on the other two: judged on the
    rows that tuned them, weights would favour models of many parts.
    """
    sampled = sample_rows(task)
    queries, parts = _part_scores(model, dataset, sampled, use)
    row_users = sampled.rows.user
    users, user_index = np.unique(row_users, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(len(users)) % FOLDS)[user_index]
    values: Doubles = np.zeros(len(row_users))
    for number in range(FOLDS):
        inside = fold == number
        if mode == "zero-shot" or inside.all() or not inside.any():
            weights = astuple(model.score_weights)
        else:
            others = [part[~inside] for part in parts]
            tuned = fit_score_weights(others, queries.valid[~inside], row_users[~inside])
            weights = tuned.weights
        total = weighted_sum([part[inside] for part in parts], weights)
        values[inside] = _ndcg(total, queries.valid[inside])
    return values, row_users


def _ndcg(scores: Scores, valid: Bools) -> Doubles:
    """Return NDCG@10 of each row of scores (m, 1 + k), positive first."""
    return METRICS["ndcg"](rank_of_positive(scores, valid), 10)


def served_bias(model: EdgeModel, task: Task, half_life: float | None) -> Floats:
    """Return the bias of each candidate, (C,): the model's own, or a popularity that decays."""
    return model.bias if half_life is None else log_popularity(task, half_life)


class FittedWeights(NamedTuple):
    """The weight of each part, and NDCG@10 of each row (m,) under them."""

    weights: Weights
    values: Scores

    @property
    def ndcg(self) -> float:
        """Mean NDCG@10."""
        return float(self.values.mean())


def fit_score_weights(
    parts: Sequence[Scores],
    valid: Bools,
    users: Ints | None = None,
    start: Sequence[float] | None = None,
) -> FittedWeights:
    """Choose the weight of each part by NDCG@10, as the mean over bootstrap draws of the users.

    Many weights rank a few hundred rows equally well, and the best of them is an accident of the
    rows. The mean over draws still ranks well in a model that is fitted again with more data
    (Breiman, Bagging predictors, 1996).

    Args:
        parts: Scores of each part, (m, 1 + k), the positive first. A constant part gets weight 0.
        valid: Marks the columns that take part, (m, 1 + k).
        users: The user of each row, (m,), drawn together; None: every row is its own user.
        start: Weights at which the search starts; None: it starts at each part alone.
    """
    search = _WeightSearch(parts, valid)
    if start is None:
        starts = [tuple(row) for row in np.eye(len(parts))[search.usable].tolist()]
    else:
        starts = [tuple((np.asarray(start) * search.spreads).tolist())]
    row_user = np.arange(len(valid)) if users is None else users
    _, user_index = np.unique(row_user, return_inverse=True)
    count, rng = int(user_index.max(initial=0)) + 1, np.random.default_rng(0)
    mean = np.zeros(len(parts))
    for _ in range(BAGS):
        draws = rng.multinomial(count, np.full(count, 1.0 / count))
        weights = np.array(search.best(starts, draws[user_index].astype(np.float64)))
        # Ranks depend on the ratios of the weights alone, so every draw gets the same total.
        mean += weights / max(np.abs(weights).sum(), MIN_SPREAD) / BAGS
    scaled = zip(mean, search.spreads, strict=True)
    unscaled = tuple(float(w / s) if s > MIN_SPREAD else 0.0 for w, s in scaled)
    return FittedWeights(unscaled, search.values(tuple(mean.tolist())))


class _WeightSearch:
    """Coordinate ascent on NDCG@10 over the weights of parts (m, 1 + k).

    Parts are divided by their spread, so that one grid of weights fits all of them. The weights of
    a search are tuples: it looks up most of its proposals, and an array costs more than that.
    """

    def __init__(self, parts: Sequence[Scores], valid: Bools) -> None:
        self.spreads = np.array([_spread(part) for part in parts])
        self.usable = [i for i, spread in enumerate(self.spreads) if spread > MIN_SPREAD]
        self._parts = [
            part / spread if spread > MIN_SPREAD else np.zeros_like(part)
            for part, spread in zip(parts, self.spreads, strict=True)
        ]
        self._valid = valid
        self._cache: dict[Weights, Scores] = {}

    def values(self, weights: Weights) -> Scores:
        """Return NDCG@10 of each row, (m,).

        All draws, and all multiples of the weights, use the same rows with other weights, so the
        values of each row are computed only once.
        """
        scale = max(MIN_SPREAD, *map(abs, weights))
        key = tuple(weight / scale for weight in weights)
        if key not in self._cache:
            self._cache[key] = _ndcg(weighted_sum(self._parts, key), self._valid)
        return self._cache[key]

    def best(self, starts: Sequence[Weights], row_weights: Doubles) -> Weights:
        """Climb from every start; return the weights with the highest mean over weighted rows."""
        optima = [self._climb(start, row_weights) for start in starts]
        nothing = (0.0,) * len(self._parts)
        return max(optima, key=lambda w: self._total(w, row_weights), default=nothing)

    def _climb(self, weights: Weights, row_weights: Doubles) -> Weights:
        best = self._total(weights, row_weights)
        for _ in range(ROUNDS):
            before = best
            for part in self.usable:
                for weight in _grid(part):
                    proposal = (*weights[:part], weight, *weights[part + 1 :])
                    if not any(proposal):
                        continue
                    value = self._total(proposal, row_weights)
                    if value > best:
                        weights, best = proposal, value
            if best == before:
                break
        return weights

    def _total(self, weights: Weights, row_weights: Doubles) -> float:
        return float(self.values(weights) @ row_weights)


def _grid(part: int) -> tuple[float, ...]:
    negative = tuple(-weight for weight in WEIGHT_GRID if weight) if part == SIGNED_PART else ()
    return (*WEIGHT_GRID, *negative)
