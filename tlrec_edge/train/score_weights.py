"""The weights of a model's parts: chosen on validation NDCG, or even where no label may be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tlrec_edge.core.metrics import METRICS, Array, rank_of_positive
from tlrec_edge.data.dataset import Bools, Dataset, Ints
from tlrec_edge.data.task import Task
from tlrec_edge.linear.item_weights import fading, log_popularity, repeatable, shown
from tlrec_edge.linear.ranking import ALL, FULL_RANKING_LIMIT, Floats, EvalQueries, row_scores, make_queries, sample_rows
from tlrec_edge.train.config import PARTS, Mix
from tlrec_edge.train.edge_model import EdgeModel, UserHistories

LEAST_BIAS = 0.01
"""Weight of the bias, in units of its spread, where validation gives it none: an empty history falls back on it."""


FLAT = 1e-6
"""A part whose spread within a row is below this says nothing; its weight would only magnify rounding."""
GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SIGNED = list(PARTS).index("repeat")
"""The part whose weight may be negative: what one has may be what one buys again, or never."""
ROUNDS, BAGS = 3, 8


@dataclass(frozen=True)
class Blend:
    """The weights of the parts, the days in which the bias fades by half (None: the network's own bias), and the
    validation NDCG@10 reached (NaN where none was looked at)."""

    mix: Mix
    half_life: float | None = None
    ndcg: float = float("nan")


def choose_mix(model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Sequence[str] = tuple(PARTS)) -> Blend:
    """Choose the weights of the parts ``use`` on validation; the others get 0. The bias fades where that helps.

    Zero-shot takes equal spreads: it may not look at target labels.
    """
    if mode == "zero-shot":
        return Blend(_even_mix(model, dataset, task))
    sampled = sample_rows(task)
    if not len(sampled.rows):
        linear = 10.0 if model.wide.nnz else 0.0
        even = Mix(deep=1.0, wide=linear, rest=linear, bias=1.0)
        return Blend(replace(even, **{name: 0.0 for name in PARTS if name not in use}))
    queries, parts = _part_scores(model, dataset, sampled, use)
    best = plain = mix_parts(parts, queries.valid, sampled.rows.user)
    half_life = None
    for days, prior in fading(task).items() if "bias" in use else ():
        faded = mix_parts([*parts[:-1], queries.gather_items(prior)], queries.valid, sampled.rows.user, plain.weights)
        if faded.ndcg > best.ndcg and shown(faded.values, plain.values, sampled.rows.user):
            best, half_life = faded, days
    mix = Mix(*best.weights)
    spread = float(np.std(served_bias(model, task, half_life)))
    if "bias" in use and not mix.bias and spread >= FLAT:
        mix = replace(mix, bias=LEAST_BIAS / spread)
    return Blend(mix, half_life, best.ndcg)


def _part_scores(model: EdgeModel, dataset: Dataset, task: Task, use: Sequence[str]) -> tuple[EvalQueries, list[Floats]]:
    """Score the task's rows by every part (m, 1 + k); those not in ``use`` are 0."""
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    queries = make_queries(task, task.rows)
    scored = zip(PARTS, row_scores(lambda q: model.part_scores(histories, q.user, q.requested), task), strict=True)
    parts = [part if name in use else np.zeros_like(part) for name, part in scored]
    parts[SIGNED] = repeatable(task, queries, parts[SIGNED])
    return queries, parts


def cross_fitted(model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Sequence[str]) -> tuple[Array, Ints]:
    """Return NDCG@10 of the validation rows and their users, each third of them under weights chosen on the others.

    Weights chosen on the rows they are judged by flatter a model of many parts.
    """
    sampled = sample_rows(task)
    queries, parts = _part_scores(model, dataset, sampled, use)
    users, place = np.unique(sampled.rows.user, return_inverse=True)
    third = (np.random.default_rng(0).permutation(len(users)) % 3)[place]
    values: Array = np.zeros(len(sampled.rows))
    for mine in (third == part for part in range(3)):
        if mode == "zero-shot" or mine.all() or not mine.any():
            weights = tuple(getattr(model.mix, name) for name in PARTS)
        else:
            others = [part[~mine] for part in parts]
            weights = mix_parts(others, queries.valid[~mine], sampled.rows.user[~mine]).weights
        total = sum((w * part[mine] for w, part in zip(weights, parts, strict=True)), np.zeros_like(parts[0][mine]))
        values[mine] = METRICS["ndcg"](rank_of_positive(total, queries.valid[mine]), 10)
    return values, sampled.rows.user


def served_bias(model: EdgeModel, task: Task, half_life: float | None) -> Floats:
    """Return the bias of each candidate, (C,): the model's own, or a popularity that fades."""
    return model.bias if half_life is None else log_popularity(task, half_life)


def _even_mix(model: EdgeModel, dataset: Dataset, task: Task) -> Mix:
    """Weigh the parts by one over their spread within a user, the bias half as much; no label is looked at."""
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    users = np.flatnonzero(np.diff(histories.start) > 0)[:256].astype(np.int32)
    if not len(users):
        return Mix()
    few = ALL if model.candidates <= FULL_RANKING_LIMIT else np.random.default_rng(0).choice(model.candidates, FULL_RANKING_LIMIT).astype(np.int32)
    spread = [float(np.std(part - part.mean(1, keepdims=True))) for part in model.part_scores(histories, users, few)]
    *weights, bias = (1.0 / s if s > FLAT else 0.0 for s in spread)
    return replace(Mix(**dict(zip(PARTS, (*weights, 0.5 * bias), strict=True))), repeat=0.0)


class Mixed(NamedTuple):
    """The weight of each part, and NDCG@10 of each row (m,) under them."""

    weights: tuple[float, ...]
    values: Floats

    @property
    def ndcg(self) -> float:
        return float(self.values.mean())


class _Search:
    """Coordinate ascent on NDCG@10 over the weights of parts (m, 1 + k), in units of one over a part's spread within a
    row. What a row reaches under some weights is computed once, whatever share of the rows it is asked for."""

    def __init__(self, parts: Sequence[Floats], valid: Bools) -> None:
        self.spread = np.array([float(np.std(p - p.mean(1, keepdims=True))) for p in parts])
        self.parts = [p / s if s > FLAT else np.zeros_like(p) for p, s in zip(parts, self.spread, strict=True)]
        self.usable = [i for i, s in enumerate(self.spread) if s > FLAT]
        self.valid = valid
        self.known: dict[tuple[float, ...], Floats] = {}

    def values(self, weights: Array) -> Floats:
        """Return NDCG@10 of each row (m,)."""
        key = tuple(weights / np.abs(weights).max(initial=FLAT))
        if key not in self.known:
            total = sum((w * p for w, p in zip(key, self.parts, strict=True) if w), np.zeros_like(self.parts[0]))
            self.known[key] = METRICS["ndcg"](rank_of_positive(total, self.valid), 10)
        return self.known[key]

    def best(self, starts: Sequence[Array], share: Array) -> Array:
        """Climb from every start and return the weights of the highest mean, rows weighing ``share`` (m,)."""
        tops = [self._climb(start, share) for start in starts]
        return max(tops, key=lambda weights: float(self.values(weights) @ share), default=np.zeros(len(self.parts)))

    def _climb(self, weights: Array, share: Array) -> Array:
        now = float(self.values(weights) @ share)
        for _ in range(ROUNDS):
            before = now
            for i in self.usable:
                for step in (*GRID, *(-step for step in GRID if i == SIGNED and step)):
                    trial = weights.copy()
                    trial[i] = step
                    if trial.any() and (got := float(self.values(trial) @ share)) > now:
                        weights, now = trial, got
            if now == before:
                break
        return weights


def mix_parts(
    parts: Sequence[Floats], valid: Bools, users: Ints | None = None, start: Sequence[float] | None = None
) -> Mixed:
    """Choose the weight of each part by NDCG@10: the mean of what BAGS draws of the users choose.

    ``parts`` are scores (m, 1 + k), positive first, ``users`` (m,) whose they are (by default each row's own). A part
    that is constant gets 0. A search begins at each part alone, or at the weights ``start``. Many weights rank a few
    hundred rows equally well; their mean (Breiman, Bagging predictors, 1996) still does when more is learned from.
    """
    search = _Search(parts, valid)
    starts = [np.eye(len(parts))[i] for i in search.usable] if start is None else [np.asarray(start) * search.spread]
    _, place = np.unique(np.arange(len(valid)) if users is None else users, return_inverse=True)
    count, rng = int(place.max(initial=0)) + 1, np.random.default_rng(0)
    mean = np.zeros(len(parts))
    for _ in range(BAGS):
        drawn = rng.multinomial(count, np.full(count, 1.0 / count))[place].astype(np.float64)
        chosen = search.best(starts, drawn)
        mean += chosen / max(np.abs(chosen).sum(), FLAT) / BAGS
    weights = tuple(float(w / s) if s > FLAT else 0.0 for w, s in zip(mean, search.spread, strict=True))
    return Mixed(weights, search.values(mean))
