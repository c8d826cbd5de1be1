"""The weights of a model's parts: chosen on validation NDCG, or even where no label may be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tlrec_edge.core.metrics import METRICS, rank_of_positive
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.priors import decayed_popularity, log_popularity
from tlrec_edge.linear.ranking import (
    ALL,
    FULL_RANKING_LIMIT,
    EvalQueries,
    make_queries,
    row_scores,
    sample_rows,
)
from tlrec_edge.linear.tuning import beats_by_one_se, learnable_repeats
from tlrec_edge.train.config import PARTS, ScoreWeights
from tlrec_edge.train.edge_model import EdgeModel, UserHistories
from tlrec_edge.types import Bools, Doubles, Ints, Scores

MIN_BIAS = 0.01
"""Weight of the bias, in units of its spread, where validation gives it none: an empty history falls back on it."""


MIN_SPREAD = 1e-6
"""A part whose spread within a row is below this says nothing; its weight would only magnify rounding."""
WEIGHT_GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SIGNED_PART = list(PARTS).index("repeat")
"""The part whose weight may be negative: what one has may be what one buys again, or never."""
ROUNDS, BAGS = 3, 8


@dataclass(frozen=True)
class TunedWeights:
    """The weights of the parts, the days in which the bias fades by half (None: the network's own bias), and the
    validation NDCG@10 reached (NaN where none was looked at)."""

    weights: ScoreWeights
    half_life: float | None = None
    ndcg: float = float("nan")


def tune_score_weights(
    model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Sequence[str] = tuple(PARTS)
) -> TunedWeights:
    """Choose the weights of the parts ``use`` on validation; the others get 0. The bias fades where that helps.

    Zero-shot takes equal spreads: it may not look at target labels.
    """
    if mode == "zero-shot":
        return TunedWeights(_equal_spread_weights(model, dataset, task))
    sampled = sample_rows(task)
    if not len(sampled.rows):
        linear = 10.0 if model.wide.nnz else 0.0
        even = ScoreWeights(deep=1.0, wide=linear, rest=linear, bias=1.0)
        return TunedWeights(replace(even, **{name: 0.0 for name in PARTS if name not in use}))
    queries, parts = _part_scores(model, dataset, sampled, use)
    best = plain = fit_score_weights(parts, queries.valid, sampled.rows.user)
    half_life = None
    for days, prior in decayed_popularity(task).items() if "bias" in use else ():
        decayed = fit_score_weights(
            [*parts[:-1], queries.gather_items(prior)],
            queries.valid,
            sampled.rows.user,
            plain.weights,
        )
        if decayed.ndcg > best.ndcg and beats_by_one_se(
            decayed.values, plain.values, sampled.rows.user
        ):
            best, half_life = decayed, days
    weights = ScoreWeights(*best.weights)
    spread = float(np.std(served_bias(model, task, half_life)))
    if "bias" in use and not weights.bias and spread >= MIN_SPREAD:
        weights = replace(weights, bias=MIN_BIAS / spread)
    return TunedWeights(weights, half_life, best.ndcg)


def _part_scores(
    model: EdgeModel, dataset: Dataset, task: Task, use: Sequence[str]
) -> tuple[EvalQueries, list[Scores]]:
    """Score the task's rows by every part (m, 1 + k); those not in ``use`` are 0."""
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    queries = make_queries(task, task.rows)
    scored = zip(
        PARTS,
        row_scores(lambda q: model.part_scores(histories, q.user, q.requested), task),
        strict=True,
    )
    parts = [part if name in use else np.zeros_like(part) for name, part in scored]
    parts[SIGNED_PART] = learnable_repeats(task, queries, parts[SIGNED_PART])
    return queries, parts


def cross_fitted_ndcg(
    model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Sequence[str]
) -> tuple[Doubles, Ints]:
    """Return NDCG@10 of the validation rows and their users, each third of them under weights chosen on the others.

    Weights chosen on the rows they are judged by flatter a model of many parts.
    """
    sampled = sample_rows(task)
    queries, parts = _part_scores(model, dataset, sampled, use)
    users, place = np.unique(sampled.rows.user, return_inverse=True)
    third = (np.random.default_rng(0).permutation(len(users)) % 3)[place]
    values: Doubles = np.zeros(len(sampled.rows))
    for mine in (third == part for part in range(3)):
        if mode == "zero-shot" or mine.all() or not mine.any():
            weights = tuple(getattr(model.score_weights, name) for name in PARTS)
        else:
            others = [part[~mine] for part in parts]
            weights = fit_score_weights(
                others, queries.valid[~mine], sampled.rows.user[~mine]
            ).weights
        total = sum(
            (w * part[mine] for w, part in zip(weights, parts, strict=True)),
            np.zeros_like(parts[0][mine]),
        )
        values[mine] = METRICS["ndcg"](rank_of_positive(total, queries.valid[mine]), 10)
    return values, sampled.rows.user


def served_bias(model: EdgeModel, task: Task, half_life: float | None) -> Scores:
    """Return the bias of each candidate, (C,): the model's own, or a popularity that fades."""
    return model.bias if half_life is None else log_popularity(task, half_life)


def _equal_spread_weights(model: EdgeModel, dataset: Dataset, task: Task) -> ScoreWeights:
    """Weigh the parts by one over their spread within a user, the bias half as much; no label is looked at."""
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    users = np.flatnonzero(np.diff(histories.start) > 0)[:256].astype(np.int32)
    if not len(users):
        return ScoreWeights()
    few = (
        ALL
        if model.candidates <= FULL_RANKING_LIMIT
        else np.random.default_rng(0).choice(model.candidates, FULL_RANKING_LIMIT).astype(np.int32)
    )
    spread = [
        float(np.std(part - part.mean(1, keepdims=True)))
        for part in model.part_scores(histories, users, few)
    ]
    *weights, bias = (1.0 / s if s > MIN_SPREAD else 0.0 for s in spread)
    return replace(
        ScoreWeights(**dict(zip(PARTS, (*weights, 0.5 * bias), strict=True))), repeat=0.0
    )


class FittedWeights(NamedTuple):
    """The weight of each part, and NDCG@10 of each row (m,) under them."""

    weights: tuple[float, ...]
    values: Scores

    @property
    def ndcg(self) -> float:
        return float(self.values.mean())


class _WeightSearch:
    """Coordinate ascent on NDCG@10 over the weights of parts (m, 1 + k), in units of one over a part's spread within a
    row. What a row reaches under some weights is computed once, whatever share of the rows it is asked for."""

    def __init__(self, parts: Sequence[Scores], valid: Bools) -> None:
        self.spread = np.array([float(np.std(p - p.mean(1, keepdims=True))) for p in parts])
        self.parts = [
            p / s if s > MIN_SPREAD else np.zeros_like(p)
            for p, s in zip(parts, self.spread, strict=True)
        ]
        self.usable = [i for i, s in enumerate(self.spread) if s > MIN_SPREAD]
        self.valid = valid
        self.cache: dict[tuple[float, ...], Scores] = {}

    def values(self, weights: Doubles) -> Scores:
        """Return NDCG@10 of each row (m,)."""
        key = tuple(weights / np.abs(weights).max(initial=MIN_SPREAD))
        if key not in self.cache:
            total = sum(
                (w * p for w, p in zip(key, self.parts, strict=True) if w),
                np.zeros_like(self.parts[0]),
            )
            self.cache[key] = METRICS["ndcg"](rank_of_positive(total, self.valid), 10)
        return self.cache[key]

    def best(self, starts: Sequence[Doubles], row_weights: Doubles) -> Doubles:
        """Climb from every start and return the weights of the highest mean, rows weighing ``row_weights`` (m,)."""
        optima = [self._climb(start, row_weights) for start in starts]
        return max(
            optima,
            key=lambda weights: float(self.values(weights) @ row_weights),
            default=np.zeros(len(self.parts)),
        )

    def _climb(self, weights: Doubles, row_weights: Doubles) -> Doubles:
        best_value = float(self.values(weights) @ row_weights)
        for _ in range(ROUNDS):
            before = best_value
            for i in self.usable:
                for step in (
                    *WEIGHT_GRID,
                    *(-step for step in WEIGHT_GRID if i == SIGNED_PART and step),
                ):
                    proposal = weights.copy()
                    proposal[i] = step
                    if (
                        proposal.any()
                        and (value := float(self.values(proposal) @ row_weights)) > best_value
                    ):
                        weights, best_value = proposal, value
            if best_value == before:
                break
        return weights


def fit_score_weights(
    parts: Sequence[Scores],
    valid: Bools,
    users: Ints | None = None,
    start: Sequence[float] | None = None,
) -> FittedWeights:
    """Choose the weight of each part by NDCG@10: the mean of what BAGS draws of the users choose.

    ``parts`` are scores (m, 1 + k), positive first, ``users`` (m,) whose they are (by default each row's own). A part
    that is constant gets 0. A search begins at each part alone, or at the weights ``start``. Many weights rank a few
    hundred rows equally well; their mean (Breiman, Bagging predictors, 1996) still does when more is learned from.
    """
    search = _WeightSearch(parts, valid)
    starts = (
        [np.eye(len(parts))[i] for i in search.usable]
        if start is None
        else [np.asarray(start) * search.spread]
    )
    _, place = np.unique(np.arange(len(valid)) if users is None else users, return_inverse=True)
    count, rng = int(place.max(initial=0)) + 1, np.random.default_rng(0)
    mean = np.zeros(len(parts))
    for _ in range(BAGS):
        drawn = rng.multinomial(count, np.full(count, 1.0 / count))[place].astype(np.float64)
        chosen = search.best(starts, drawn)
        mean += chosen / max(np.abs(chosen).sum(), MIN_SPREAD) / BAGS
    weights = tuple(
        float(w / s) if s > MIN_SPREAD else 0.0 for w, s in zip(mean, search.spread, strict=True)
    )
    return FittedWeights(weights, search.values(mean))
