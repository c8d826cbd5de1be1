"""Choose EASE's hyperparameters by NDCG@10 on validation rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from tlrec_edge.core.metrics import METRICS, clustered_mean, rank_of_positive
from tlrec_edge.core.progress import Progress, Reporter
from tlrec_edge.core.result_cache import Arrays
from tlrec_edge.data.remember import remember
from tlrec_edge.data.task import Task
from tlrec_edge.linear.ease import Ease, LinearScorer, dense_scorer, sparse_scorer
from tlrec_edge.linear.item_weights import USER_POWER
from tlrec_edge.linear.matrices import InteractionMatrices, keep_largest_per_column
from tlrec_edge.linear.priors import decayed_popularity, log_popularity
from tlrec_edge.linear.ranking import EvalQueries, make_queries, row_scores, sample_rows
from tlrec_edge.linear.sparse_ease import SparseEase, make_ease
from tlrec_edge.types import Ints, Scores

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
INITIAL_PENALTIES = (4, 5, 6, 7)
"""Indices of the penalties that are always tried.

The neighbours of the best one follow, until the best lies between two that were tried. The metric
has several peaks: a search that climbed from one penalty alone lost .019 of NDCG@10 on Complete
Journey.
"""
SEARCH_ITEMS = 4000
"""Items of the first search of the penalty, if EASE is solved for more than twice as many rows."""
POPULARITY_WEIGHTS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
REPEAT_BIASES = (0.0, -4.0, -1.0, -0.25, 0.25, 1.0)
"""Values to try for what is added to the score of an item that the user already had."""
EXPECTED_PENALTIES = 6
"""Penalties that a search usually tries."""
SOLUTIONS = "solutions of EASE"
"""The kind of work that a search does."""
MAX_TUNING_ROWS = 6000
"""Validation rows that are used to choose hyperparameters."""


@dataclass(frozen=True)
class EaseHyperparameters:
    """Hyperparameters of EASE, chosen on validation rows.

    Attributes:
        penalty: the ridge penalty.
        popularity_weight: weight of log popularity in the score.
        ndcg: the validation NDCG@10 that was reached, NaN if nothing was chosen.
        half_life: days after which a purchase counts half in popularity; None for no decay.
        max_weights: item-item weights a candidate keeps; None for all.
        repeat_bias: what is added to the score of an item that the user already had.
        target_penalty: penalty of the EASE on the target's interactions alone; None for no such
            part.
    """

    penalty: float = 1000.0
    popularity_weight: float = 0.005
    ndcg: float = float("nan")
    half_life: float | None = None
    max_weights: int | None = None
    repeat_bias: float = 0.0
    target_penalty: float | None = None

    def to_arrays(self) -> Arrays:
        return {"json": np.array(json.dumps(asdict(self)))}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        return cls(**json.loads(str(arrays["json"])))

    @property
    def at_grid_edge(self) -> bool:
        """Whether the penalty is the smallest or the largest that can be tried."""
        return self.penalty in (PENALTIES[0], PENALTIES[-1])


def tune_ease(
    task: Task,
    data: InteractionMatrices,
    progress: Reporter | None = None,
    user_power: float = 0.0,
    max_weights: int | None = None,
    decay: bool = False,
    tune_repeats: bool = True,
) -> EaseHyperparameters:
    """Choose EASE's penalty and the weight of popularity by NDCG@10 on the task's rows.

    ``max_weights`` also tries trimming to that many weights per candidate, and ``decay`` also tries
    popularity that decays with time. Both are taken only if they are better by more than a standard
    error. With ``tune_repeats`` the bias of items that the user already had is
    chosen, if such items are ranked at all. Without rows the defaults are returned. If the time
    budget of ``progress`` ends the search early, the best so far is returned.
    """
    follow = Progress.of(progress)
    left_out = len(follow.left_out)
    if not len(task.rows) or not data.train.nnz:
        return EaseHyperparameters()
    return remember(
        task,
        "tune_ease",
        (*data.arrays, user_power, max_weights, decay, tune_repeats),
        lambda: _tune_ease(task, data, follow, user_power, max_weights, decay, tune_repeats),
        EaseHyperparameters.to_arrays,
        EaseHyperparameters.from_arrays,
        is_complete=lambda: len(follow.left_out) == left_out,
    )


def _tune_ease(
    task: Task,
    data: InteractionMatrices,
    progress: Progress,
    user_power: float,
    max_weights: int | None,
    decay: bool,
    tune_repeats: bool,
) -> EaseHyperparameters:
    search = _Search(task, data, user_power, max_weights, tune_repeats, progress)
    if not decay:
        best = search.try_penalties()
        if max_weights:
            best = search.better_by_one_se(best, search.try_trimming(best))
        return best.hyperparameters
    # The rest is chosen as without decay, and then remembered.
    plain = search.score(
        tune_ease(task, data, progress, user_power, max_weights, False, tune_repeats)
    )
    progress.doing("half-lives of popularity")
    return search.better_by_one_se(plain, search.try_decay(plain)).hyperparameters


def tune_target_ease(
    task: Task, rows: Ints, max_weights: int, progress: Progress | None = None
) -> float | None:
    """Choose the penalty of EASE on the target's interactions alone.

    Return None if it can add nothing: if the task has no other domain, or if no user of the
    evaluation queries has a history in the target.
    """
    target_task = task.target_only()
    data = InteractionMatrices.of(target_task, _used_rows(target_task, rows))
    if len(target_task.train) == len(task.train) or not data.history[np.unique(task.rows.user)].nnz:
        return None
    return tune_ease(target_task, data, progress, USER_POWER, max_weights=max_weights).penalty


def _used_rows(task: Task, rows: Ints) -> Ints:
    """Number the candidates and the items of the training data alone, in the order of ``rows``.

    The matrices are then those of a model of the target alone, and what was tuned for it is
    remembered.
    """
    used = np.union1d(np.unique(task.train.item), task.candidates)
    used = used[rows[used] >= 0]
    numbers = np.full_like(rows, -1)
    numbers[used[np.argsort(rows[used])]] = np.arange(len(used))
    return numbers


def learnable_repeats(task: Task, queries: EvalQueries, seen: Scores) -> Scores:
    """Return ``seen`` (m, 1 + k) without the marks that a repeat bias must not be fitted on.

    Sampled negatives are never items that the user already had. If the positive is one, it is the
    only one in its row, and a repeat purchase would look certain. So all marks become 0 if the rows
    have negatives.
    """
    is_ranked = np.zeros_like(queries.valid) if task.rows.negatives.shape[1] else queries.valid
    return np.where(is_ranked, seen, np.float32(0.0))


def beats_by_one_se(values: Scores, baseline: Scores, users: Ints) -> bool:
    """Return whether the mean of ``values`` is higher by more than a standard error.

    Both are values per row (m,). The error is clustered by user. Picking the best of several
    refinements by the mean alone would pick noise.
    """
    difference = clustered_mean(np.asarray(values - baseline, np.float64), users)
    return difference.mean > difference.se


class _Result(NamedTuple):
    """Hyperparameters, EASE's scores (m, 1 + k) under them, and the NDCG@10 (m,) of each row."""

    scores: Scores
    hyperparameters: EaseHyperparameters
    row_ndcg: Scores


class _Search:
    """Scores the validation rows of one task under hyperparameters."""

    def __init__(
        self,
        task: Task,
        data: InteractionMatrices,
        user_power: float,
        max_weights: int | None,
        tune_repeats: bool,
        progress: Progress,
    ) -> None:
        self.task, self.data = sample_rows(task, MAX_TUNING_ROWS), data
        self.queries = make_queries(self.task, self.task.rows)
        self.progress, self.user_power = progress, user_power
        self.solver = make_ease(data.train, data.columns, user_power)
        can_trim = max_weights and isinstance(self.solver, Ease) and not self.solver.is_dual
        self.max_weights = max_weights if can_trim else None
        self.trimmed: dict[float, sp.csr_array] = {}
        """The trimmed weights of the penalties that were solved."""
        if isinstance(self.solver, SparseEase):
            self.progress.note(f"sparse: {data.train.shape[1]:,} items are too many for exact EASE")
        self.prior = self.queries.gather_items(log_popularity(task))
        (seen,) = row_scores(lambda q: [_seen_mask(data, q)], self.task)
        self.seen = learnable_repeats(task, self.queries, seen)
        if not tune_repeats:
            self.seen = np.zeros_like(self.seen)

    def score(self, chosen: EaseHyperparameters) -> _Result:
        """Return the result of hyperparameters that were chosen by an equal search."""
        scorer = self._solve(chosen.penalty)
        if chosen.max_weights:
            scorer = sparse_scorer(self.trimmed[chosen.penalty])
        return self._tune_biases(self._row_scores(scorer), self.prior, chosen)

    def try_penalties(self) -> _Result:
        """Return the best penalty of the grid, which is climbed from its middle."""
        tried: dict[int, _Result] = {}
        untried, allowed = self._first_penalties()
        while untried:
            if tried and self.progress.late(SOLUTIONS, EXPECTED_PENALTIES):
                penalties = ", ".join(f"{PENALTIES[i]:g}" for i in untried)
                self.progress.cut_short(f"penalties {penalties}")
                break
            self._report(untried, [result.hyperparameters for result in tried.values()])
            i = untried.pop(0)
            parameters = EaseHyperparameters(PENALTIES[i])
            scores = self._row_scores(self._solve(PENALTIES[i]))
            tried[i] = self._tune_biases(scores, self.prior, parameters)
            if not untried:
                best = max(tried, key=lambda i: tried[i].hyperparameters.ndcg)
                untried = [i for i in (best - 1, best + 1) if i in allowed and i not in tried]
        return max(tried.values(), key=lambda result: result.hyperparameters.ndcg)

    def _first_penalties(self) -> tuple[list[int], range]:
        """Return the indices of the penalties that are tried first, and of those that may be.

        If a solution takes long, a search on the most bought items goes ahead. Their counts are
        higher, so the best penalty of all items is the same or a smaller one: on 13,300 items of
        the WSDM Cup's markets 100 instead of 300, .001 of NDCG@10 apart; on 97,000 synthetic ones
        100 instead of 1000, .015 apart.
        """
        every = list(INITIAL_PENALTIES), range(len(PENALTIES))
        size = self.solver.size if isinstance(self.solver, Ease) else self.data.train.shape[1]
        if size <= 2 * SEARCH_ITEMS:
            return every
        task, data = _most_bought(self.task, self.data, SEARCH_ITEMS)
        if not len(task.rows):
            return every
        self.progress.doing(f"penalties on the {SEARCH_ITEMS:,} most bought items")
        search = _Search(task, data, self.user_power, None, False, Progress())
        best = PENALTIES.index(search.try_penalties().hyperparameters.penalty)
        return [best, best - 1] if best else [best], range(best + 1)

    def _report(self, untried: Sequence[int], tried: Sequence[EaseHyperparameters]) -> None:
        """Report the penalty that is tried next, and the best so far."""
        number, planned = len(tried) + 1, len(tried) + len(untried)
        text = f"penalty {PENALTIES[untried[0]]:g}, {number} of {planned}"
        if tried:
            best = max(tried, key=lambda parameters: parameters.ndcg)
            text += f", best validation {best.ndcg:.4f} at {best.penalty:g}"
        self.progress.doing(text, SOLUTIONS, number, max(planned, EXPECTED_PENALTIES))

    def try_trimming(self, best: _Result) -> list[_Result]:
        """Trim each candidate to its largest weights, at the best penalty and the next two smaller.

        Trimming regularizes too, so a smaller penalty may go with it. With fewer users than items
        it does not help: there the many small weights carry the information.
        """
        if self.max_weights is None:
            return []
        if self.progress.late(SOLUTIONS, EXPECTED_PENALTIES):
            self.progress.cut_short("trimmed weights")
            return []
        self.progress.doing("trimmed weights")
        i = PENALTIES.index(best.hyperparameters.penalty)
        results = []
        for penalty in PENALTIES[max(i - 2, 0) : i + 1]:
            if penalty not in self.trimmed:
                self._solve(penalty)
            parameters = EaseHyperparameters(penalty, max_weights=self.max_weights)
            scores = self._row_scores(sparse_scorer(self.trimmed[penalty]))
            results.append(self._tune_biases(scores, self.prior, parameters))
        return results

    def try_decay(self, best: _Result) -> list[_Result]:
        """Let popularity decay by each half-life."""
        results = []
        for days, log_count in decayed_popularity(self.task).items():
            parameters = replace(best.hyperparameters, half_life=days)
            prior = self.queries.gather_items(log_count)
            results.append(self._tune_biases(best.scores, prior, parameters))
        return results

    def better_by_one_se(self, plain: _Result, refined: Sequence[_Result]) -> _Result:
        """Return the best of the refinements if it beats the plain result, else the plain one."""
        best = max(refined, key=lambda result: result.hyperparameters.ndcg, default=plain)
        users = self.task.rows.user
        return best if beats_by_one_se(best.row_ndcg, plain.row_ndcg, users) else plain

    def _solve(self, penalty: float) -> LinearScorer:
        """Solve once; keep the trimmed weights, which take little memory, for ``try_trimming``."""
        if self.max_weights is None or not isinstance(self.solver, Ease):
            return self.solver.scorer(penalty, self.queries.requested)
        weights = self.solver.weights(penalty)
        self.trimmed[penalty] = keep_largest_per_column(weights, self.max_weights)
        return dense_scorer(weights)

    def _row_scores(self, scorer: LinearScorer) -> Scores:
        (scores,) = row_scores(
            lambda q: [scorer(self.data.history[q.user], q.requested)], self.task
        )
        return scores

    def _tune_biases(
        self, scores: Scores, prior: Scores, hyperparameters: EaseHyperparameters
    ) -> _Result:
        """Choose the repeat bias first, then the weight of popularity."""

        def row_ndcg(repeat_bias: float, popularity_weight: float) -> Scores:
            total = scores + popularity_weight * prior
            if repeat_bias:
                total = total + repeat_bias * self.seen
            return METRICS["ndcg"](rank_of_positive(total, self.queries.valid), 10)

        repeat_bias = 0.0
        if self.seen.any():
            repeat_bias = max(REPEAT_BIASES, key=lambda bias: float(row_ndcg(bias, 0.0).mean()))
        tried = {weight: row_ndcg(repeat_bias, weight) for weight in POPULARITY_WEIGHTS}
        best = max(tried, key=lambda weight: float(tried[weight].mean()))
        chosen = replace(
            hyperparameters,
            popularity_weight=best,
            repeat_bias=repeat_bias,
            ndcg=float(tried[best].mean()),
        )
        return _Result(scores, chosen, tried[best])


def _most_bought(
    task: Task, data: InteractionMatrices, count: int
) -> tuple[Task, InteractionMatrices]:
    """Return the task and its matrices with the ``count`` most bought items alone."""
    bought = np.bincount(data.train.indices, minlength=data.train.shape[1])
    kept = np.sort(np.argsort(-bought, kind="stable")[:count])
    column = np.full(len(bought), -1, np.int32)
    column[kept] = np.arange(len(kept), dtype=np.int32)
    is_candidate = column[data.columns] >= 0
    candidates = task.candidates[is_candidate]
    rows = task.rows.select(np.isin(task.rows.item, candidates))
    negatives = np.where(np.isin(rows.negatives, candidates), rows.negatives, -1)
    return (
        replace(task, candidates=candidates, rows=replace(rows, negatives=negatives)),
        InteractionMatrices(
            data.train[:, kept], data.history[:, kept], column[data.columns][is_candidate]
        ),
    )


def _seen_mask(data: InteractionMatrices, queries: EvalQueries) -> Scores:
    """Mark the requested candidates that each user already had, 1 or 0. Shape (u, requested)."""
    seen = data.history[queries.user][:, data.columns[queries.requested]] > 0
    marks: Scores = seen.toarray().astype(np.float32)
    return marks
