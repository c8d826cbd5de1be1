"""The weights of a model's parts: chosen on validation NDCG, or even where no label may be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Bools, Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.metrics import METRICS, rank_of_positive
from tlrec_edge.train.artifact import EdgeModel, Mix, Past
from tlrec_edge.train.ranking import Floats, questions, sample_rows

PARTS = ("deep", "wide", "interest", "bias")
LEAST_BIAS = 0.01
"""Weight of the bias, in units of its spread, where validation gives it none: an empty history falls back on it."""


FLAT = 1e-6
"""A part whose spread within a row is below this says nothing; its weight would only magnify rounding."""


def choose_mix(
    model: EdgeModel, dataset: Dataset, task: Task, mode: str, use: Sequence[str] = PARTS
) -> tuple[Mix, float]:
    """Choose the weights of the parts ``use`` on validation; the others get 0.

    Zero-shot takes equal spreads: it may not look at target labels.
    """
    if mode == "zero-shot":
        return _even_mix(model, dataset, task), float("nan")
    asked = sample_rows(task)
    if not len(asked.rows):
        return Mix(deep=1.0, wide=0.0 if not model.wide.nnz else 10.0, interest=0.0, bias=1.0), float("nan")
    past = Past.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    question = questions(asked, asked.rows)
    parts = list(zip(PARTS, (question.pick(p) for p in model.part_scores(past, question.user)), strict=True))
    weights, reached = mix_parts([part if name in use else np.zeros_like(part) for name, part in parts], question.valid)
    mix = Mix(*weights)
    spread = float(np.std(parts[3][1]))
    return (mix if mix.bias or spread < FLAT else replace(mix, bias=LEAST_BIAS / spread)), reached


def _even_mix(model: EdgeModel, dataset: Dataset, task: Task) -> Mix:
    """Weigh the parts by one over their spread within a user, the bias half as much; no label is looked at."""
    past = Past.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    users = np.flatnonzero(np.diff(past.start) > 0)[:256].astype(np.int32)
    if not len(users):
        return Mix()
    spread = [float(np.std(part - part.mean(1, keepdims=True))) for part in model.part_scores(past, users)]
    deep, wide, interest, bias = (1.0 / s if s > FLAT else 0.0 for s in spread)
    return Mix(deep, wide, interest, 0.5 * bias)


def mix_parts(
    parts: Sequence[Floats], valid: Bools, grid: Sequence[float] = (0, 0.25, 0.5, 1, 2, 4)
) -> tuple[tuple[float, ...], float]:
    """Choose the weight of each part by coordinate ascent on NDCG@10.

    ``parts`` are scores (m, 1 + k), positive first. Weights are in units of one over a part's spread within a row; a
    part that is constant gets 0. Returns the weights and the value reached.
    """
    spread = np.array([float(np.std(p - p.mean(1, keepdims=True))) for p in parts])
    scaled = [p / s if s > FLAT else np.zeros_like(p) for p, s in zip(parts, spread, strict=True)]
    usable = [i for i, s in enumerate(spread) if s > FLAT]

    def value(weights: NDArray[np.float64]) -> float:
        total = sum((w * p for w, p in zip(weights, scaled, strict=True) if w), np.zeros_like(scaled[0]))
        return float(METRICS["ndcg"](rank_of_positive(total, valid), 10).mean())

    best, reached = np.zeros(len(parts)), -1.0
    for lead in usable:
        weights = np.zeros(len(parts))
        weights[lead] = 1.0
        now = value(weights)
        for _ in range(3):
            before = now
            for i in usable:
                for step in grid:
                    trial = weights.copy()
                    trial[i] = step
                    if trial.any() and (got := value(trial)) > now:
                        weights, now = trial, got
            if now == before:
                break
        if now > reached:
            best, reached = weights, now
    return tuple(float(w / s) if s > FLAT else 0.0 for w, s in zip(best, spread, strict=True)), reached
