"""The linear parts of a model: their fit for one task and the choice of penalty, cut and weights on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.core.metrics import METRICS, clustered_mean, rank_of_positive
from tlrec_edge.data.dataset import Dataset, Interactions
from tlrec_edge.data.task import Task
from tlrec_edge.data.vocabulary import Vocabulary
from tlrec_edge.linear.ease import (
    Ease,
    LinearScorer,
    empty_matrix,
    group_counts,
    interest_ridge,
    is_small,
    keep_largest_per_column,
    keep_largest_per_row,
    popularity,
    sparse_counts,
    sparse_ridge,
    sparse_scorer,
    split_weights,
    user_item,
)
from tlrec_edge.linear.low_rank import LowRankFactors
from tlrec_edge.linear.ranking import EvalQueries, make_queries, row_scores, sample_rows
from tlrec_edge.linear.sparse_ease import EASE_NEIGHBOURS, SparseEase, make_ease
from tlrec_edge.types import Ints, Scores

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
INITIAL_PENALTIES = (4, 5, 6, 7)
"""Places of the penalties that are always tried; the neighbours of the best follow, until it lies between two tried."""
POPULARITY_WEIGHTS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
REPEAT_BIASES = (0.0, -4.0, -1.0, -0.25, 0.25, 1.0)
"""What having had an item may add to EASE's score of it, where such items are ranked at all."""
HALF_LIVES = (180.0, 90.0, 45.0, 20.0)
"""Days in which a purchase comes to count half in an item's popularity, where it is to decay."""
USER_POWER = 0.25
"""How much less a heavy user weighs in the item-item weights that are served (see ``Ease``)."""
MAX_TUNING_ROWS = 6000
"""Validation rows that a penalty is chosen by."""
WEIGHTS_PER_CANDIDATE = 50
"""How many item-item weights a candidate keeps, unless a config says otherwise."""
MAX_CATEGORIES = 4000


def log_popularity(task: Task, half_life: float | None = None) -> NDArray[np.float32]:
    """Return log1p of the buyers of each candidate, centred; ``half_life`` in days. Shape (C,)."""
    count = np.log1p(popularity(task, half_life))
    centred: NDArray[np.float32] = (count - count.mean()).astype(np.float32)
    return centred


def decayed_popularity(task: Task) -> dict[float, NDArray[np.float32]]:
    """Return the log popularity of each half-life in days; none where the data has no time."""
    return {h: log_popularity(task, h) for h in HALF_LIVES} if task.train.time.any() else {}


def sales_prior(dataset: Dataset, rows: Ints) -> NDArray[np.float32]:
    """Return the centred log of the sales of the items in ``rows``. Shape (n,).

    An item whose sales are unknown gets 0, the mean of the others; so does every item if the table has no sales column.
    """
    if dataset.features.sales is None:
        return np.zeros(len(rows), np.float32)
    sales = dataset.features.sales[rows]
    known = np.isfinite(sales)
    sold = np.log1p(np.maximum(np.where(known, sales, 0.0), 0.0))
    centred: NDArray[np.float32] = np.where(known, sold - sold.sum() / max(known.sum(), 1), 0.0)
    return centred.astype(np.float32)


@dataclass(frozen=True)
class EaseHyperparameters:
    """What validation chose for EASE: the penalty, the weight of log popularity beside it, the half-life of popularity
    in days, how many weights a candidate keeps (None: all), what is added to an item that the user already had, and the
    NDCG reached (NaN: nothing was chosen). ``target_penalty`` is the penalty of EASE on the target's rows alone, where it has a
    part in the model."""

    penalty: float = 1000.0
    popularity_weight: float = 0.005
    ndcg: float = float("nan")
    half_life: float | None = None
    max_weights: int | None = None
    repeat_bias: float = 0.0
    target_penalty: float | None = None

    @property
    def at_grid_edge(self) -> bool:
        """Say whether no penalty beyond this one could be tried."""
        return self.penalty in (PENALTIES[0], PENALTIES[-1])


@dataclass(frozen=True)
class InteractionMatrices:
    """Binary matrices over the item rows of a vocabulary: what is learned from, and what the asked users had."""

    train: sp.csr_array
    history: sp.csr_array
    columns: Ints

    @classmethod
    def of(cls, task: Task, rows: Ints | None = None) -> InteractionMatrices:
        """``rows`` maps dataset items to the vocabulary (-1 = left out); without it every item takes part."""
        rows = np.arange(task.n_items, dtype=np.int32) if rows is None else rows
        size = int(rows.max()) + 1

        def matrix(log: Interactions) -> sp.csr_array:
            known = log.select(rows[log.item] >= 0)
            return user_item(replace(known, item=rows[known.item]), task.n_users, size)

        return cls(matrix(task.train), matrix(task.history), rows[task.candidates])


class _TuningResult(NamedTuple):
    """EASE's scores of the asked rows, the choice they belong to, and NDCG@10 of each row beside popularity."""

    scores: Scores
    choice: EaseHyperparameters
    values: Scores


def tune_ease(
    task: Task,
    data: InteractionMatrices,
    progress: Callable[[str], None] | None = None,
    user_power: float = 0.0,
    max_weights: int | None = None,
    decay: bool = False,
    tune_repeats: bool = True,
) -> EaseHyperparameters:
    """Choose EASE's penalty and the weight of popularity beside it by NDCG@10 on the task's rows.

    Where that is shown to help, all but a candidate's ``max_weights`` largest weights are dropped and popularity fades
    (``decay``). ``tune_repeats``: where items that a user had compete, choose what having had one adds. Without rows return
    the default.
    """
    if not len(task.rows) or not data.train.nnz:
        return EaseHyperparameters()
    sampled = sample_rows(task, MAX_TUNING_ROWS)
    queries = make_queries(sampled, sampled.rows)
    solver = make_ease(data.train, data.columns, user_power)
    if progress and isinstance(solver, SparseEase):
        progress(
            f"EASE on each candidate's {EASE_NEIGHBOURS} nearest items: "
            f"{data.train.shape[1]:,} items are too many for all"
        )

    def score_rows(score: LinearScorer) -> Scores:
        scores: Scores = row_scores(lambda q: [score(data.history[q.user], q.requested)], sampled)[
            0
        ]
        return scores

    prior = queries.gather_items(log_popularity(task))
    (seen,) = row_scores(lambda q: [seen_mask(data, q)], sampled)
    seen = learnable_repeats(task, queries, seen) if tune_repeats else np.zeros_like(seen)
    tried: dict[int, _TuningResult] = {}
    places: Sequence[int] = INITIAL_PENALTIES
    while places:
        for place in places:
            scores = score_rows(solver.scorer(PENALTIES[place], queries.requested))
            tried[place] = _tune_popularity(
                queries, scores, seen, prior, EaseHyperparameters(PENALTIES[place])
            )
        at = max(tried, key=lambda place: tried[place].choice.ndcg)
        places = [p for p in (at - 1, at + 1) if 0 <= p < len(PENALTIES) and p not in tried]
        if progress:
            progress(
                f"EASE penalty {PENALTIES[at]:g}: best validation NDCG@10 so far {tried[at].choice.ndcg:.4f}"
            )
    best = tried[at]
    others = []
    if max_weights and isinstance(solver, Ease) and not solver.by_user:
        # Where items are more than users, the many small weights are what helps.
        for penalty in PENALTIES[max(at - 2, 0) : at + 1]:
            scores = score_rows(
                sparse_scorer(keep_largest_per_column(solver.weights(penalty), max_weights))
            )
            others.append(
                _tune_popularity(
                    queries,
                    scores,
                    seen,
                    prior,
                    EaseHyperparameters(penalty, max_weights=max_weights),
                )
            )
    best = _better_or_plain(best, others, sampled.rows.user)
    if decay:
        priors = {
            days: queries.gather_items(decayed)
            for days, decayed in decayed_popularity(task).items()
        }
        others = [
            _tune_popularity(
                queries, best.scores, seen, prior, replace(best.choice, half_life=days)
            )
            for days, prior in priors.items()
        ]
        best = _better_or_plain(best, others, sampled.rows.user)
    return best.choice


def seen_mask(data: InteractionMatrices, queries: EvalQueries) -> Scores:
    """Mark the requested candidates that each user already had, (u, requested): 1 or 0."""
    marks: Scores = (
        (data.history[queries.user][:, data.columns[queries.requested]] > 0)
        .toarray()
        .astype(np.float32)
    )
    return marks


def learnable_repeats(task: Task, queries: EvalQueries, seen: Scores) -> Scores:
    """Return the marks ``seen`` (m, 1 + k) that a weight can be learned from: those of candidates that compete.

    None where negatives were drawn: they leave out what a user had, so that buying again would look certain.
    """
    free = np.zeros_like(queries.valid) if task.rows.negatives.shape[1] else queries.valid
    return np.where(free, seen, np.float32(0.0))


def _tune_popularity(
    queries: EvalQueries, scores: Scores, seen: Scores, prior: Scores, choice: EaseHyperparameters
) -> _TuningResult:
    """Choose what an item gains by having been bought before, then the weight of popularity."""

    def values(repeat: float, share: float) -> Scores:
        total = scores + share * prior
        return METRICS["ndcg"](
            rank_of_positive(total + repeat * seen if repeat else total, queries.valid), 10
        )

    repeat = (
        max(REPEAT_BIASES, key=lambda repeat: float(values(repeat, 0.0).mean()))
        if seen.any()
        else 0.0
    )
    tried = {share: values(repeat, share) for share in POPULARITY_WEIGHTS}
    share = max(tried, key=lambda share: float(tried[share].mean()))
    chosen = replace(
        choice, popularity_weight=share, repeat_bias=repeat, ndcg=float(tried[share].mean())
    )
    return _TuningResult(scores, chosen, tried[share])


def _better_or_plain(
    plain: _TuningResult, others: Sequence[_TuningResult], users: Ints
) -> _TuningResult:
    """Return the best of the others where it is shown to be better."""
    best = max(others, key=lambda result: result.choice.ndcg, default=plain)
    return best if beats_by_one_se(best.values, plain.values, users) else plain


def beats_by_one_se(values: Scores, over: Scores, users: Ints) -> bool:
    """Say whether a refinement beats the plain choice by a standard error, clustered by user."""
    difference = clustered_mean(np.asarray(values - over, np.float64), users)
    return difference.mean > difference.se


def fit_wide(
    data: InteractionMatrices, penalty: float, max_weights: int, rank: int
) -> tuple[sp.csr_array, LowRankFactors]:
    """Fit EASE, heavy users weighing less, and split it for serving: the largest weights (N, C) and a low-rank residual.

    A candidate keeps ``max_weights`` weights, a history item four times as many.
    """
    if not data.train.nnz:
        shape = data.train.shape[1], len(data.columns)
        return empty_matrix(*shape), LowRankFactors.none(*shape)
    weights = make_ease(data.train, data.columns, USER_POWER).weights(penalty)
    if isinstance(weights, sp.csc_array):
        return keep_largest_per_row(
            keep_largest_per_column(weights, max_weights), 4 * max_weights
        ), LowRankFactors.none(*weights.shape)
    return split_weights(weights, max_weights, 4 * max_weights, rank)


def tune_target_ease(
    task: Task, rows: Ints, max_weights: int, progress: Callable[[str], None] | None
) -> float | None:
    """Choose the penalty of EASE on the target's rows alone; None where that says nothing new: no asked user has a
    history there, or there is nothing but the target."""
    target_task = task.target_only()
    data = InteractionMatrices.of(target_task, rows)
    if len(target_task.train) == len(task.train) or not data.history[np.unique(task.rows.user)].nnz:
        return None
    return tune_ease(target_task, data, progress, USER_POWER, max_weights=max_weights).penalty


def fit_target_wide(
    task: Task, rows: Ints, penalty: float | None, max_weights: int
) -> sp.csr_array:
    """Fit EASE on the target's rows alone and keep ``max_weights`` weights a candidate (N, C); none without a penalty.

    Beside the weights of all domains it keeps those within the target from being thinned out.
    """
    data = InteractionMatrices.of(task.target_only(), rows)
    if penalty is None or not data.train.nnz:
        return empty_matrix(data.train.shape[1], len(data.columns))
    return fit_wide(data, penalty, max_weights, 0)[0]


def interest_groups(dataset: Dataset, vocabulary: Vocabulary, counted: Ints) -> tuple[Ints, int]:
    """Number the values of every categorical column: the groups (N, g) of each item and how many there are.

    Only items of the dataset rows ``counted`` carry groups; the others have -1, so their interactions do not count.
    """
    columns, offset = [], 0
    mine = np.isin(vocabulary.dataset_rows, counted)
    for values in dataset.features.categorical.values():
        own = np.array([values[row] for row in vocabulary.dataset_rows], dtype=object)
        own = np.where(mine, own, "")
        names, code = np.unique(own.astype(str), return_inverse=True)
        if not 2 <= len(names) <= MAX_CATEGORIES:
            continue
        shift = 1 if names[0] == "" else 0
        columns.append(np.where(code >= shift, code - shift + offset, -1))
        offset += len(names) - shift
    if not columns:
        return np.full((len(vocabulary.ids), 0), -1, np.int32), 0
    return np.stack(columns, 1).astype(np.int32), offset


def fit_interest(
    task: Task, groups: Ints, size: int, vocabulary: Vocabulary, penalty: float, rank: int
) -> LowRankFactors:
    """Fit the ridge from group counts outside the target to what the same users bought in the target."""
    in_target = task.in_target(task.train)
    if not size or in_target.all() or not in_target.any():
        return LowRankFactors.none(size, vocabulary.candidates)
    known = task.train.select(~in_target & (vocabulary.rows[task.train.item] >= 0))
    seen = user_item(known, task.n_users, task.n_items)[:, vocabulary.dataset_rows]
    bought = user_item(task.train.select(in_target), task.n_users, task.n_items)[:, task.candidates]
    both = np.flatnonzero((np.diff(seen.indptr) > 0) & (np.diff(bought.indptr) > 0))
    if len(both) < 20:
        return LowRankFactors.none(size, vocabulary.candidates)
    rank = min(rank, size, vocabulary.candidates)
    if not is_small(len(both), max(size, vocabulary.candidates)):
        counts = sparse_counts(sp.csr_array(seen[both]), groups, size)
        return sparse_ridge(counts, sp.csr_array(bought[both]), penalty, rank)
    dense = group_counts(sp.csr_array(seen[both]), groups, size)
    return interest_ridge(dense, bought[both].toarray(), penalty, rank)
