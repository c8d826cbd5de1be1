"""Rank the questions of a task by any scorer: a function from users to scores of all candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.metrics import METRICS, rank_of_positive
from tlrec_edge.core.topk import top_k
from tlrec_edge.data.dataset import EvalRows
from tlrec_edge.data.task import Task
from tlrec_edge.types import Bools, Ints, Scores

Columns = Ints | slice
ALL = slice(None)
USERS_PER_CHUNK = 256
FULL_RANKING_LIMIT = 20_000
"""From this many candidates on, only those that a chunk of rows asks about are scored."""


class Scorer(Protocol):
    """From user rows (u,) of the dataset to scores of the task's candidates, of ``columns`` alone: (u, columns)."""

    def __call__(self, users: Ints, columns: Columns = ALL) -> Scores: ...


TOP = 10


class Ranking(NamedTuple):
    """Rank of each row's positive (1 = first, ties half) and the number of candidates it met, all (m,).

    ``full_rank`` (m,) and ``full_candidates`` (m,) are the same against every candidate but the user's known and other positive
    items, where the rows have sampled negatives. ``top`` (u, TOP) are the item rows recommended to each distinct user,
    -1 where there are fewer.
    """

    rank: NDArray[np.float64]
    n_candidates: NDArray[np.int64]
    user: Ints
    item: Ints
    full_rank: NDArray[np.float64] | None = None
    full_candidates: NDArray[np.int64] | None = None
    top: Ints | None = None


@dataclass(frozen=True)
class EvalQueries:
    """A chunk of rows: ``user`` (u,) distinct, ``user_index`` (m,) their place, ``columns`` (m, 1 + k), the positive first.

    ``columns`` point into ``requested``, which are the candidates to be scored.
    """

    user: Ints
    user_index: NDArray[np.intp]
    columns: NDArray[np.int64]
    valid: Bools
    requested: Columns = field(default_factory=lambda: ALL)

    def gather(self, scores: Scores) -> Scores:
        """Read the rows' scores (m, 1 + k) off the users' scores of the asked candidates (u, asked)."""
        return scores[self.user_index[:, None], self.columns]

    def gather_items(self, values: Scores) -> Scores:
        """Read the rows' values (m, 1 + k) off one value a candidate (C,)."""
        return values[self.requested][self.columns]


def make_queries(task: Task, rows: EvalRows) -> EvalQueries:
    """Turn rows into candidate columns; without negatives the whole candidate set competes."""
    user, user_index = np.unique(rows.user, return_inverse=True)
    positive = task.column[rows.item].astype(np.int64)
    if rows.negatives.shape[1]:
        others = np.where(rows.negatives >= 0, task.column[rows.negatives], -1).astype(np.int64)
        columns = np.concatenate([positive[:, None], others], 1)
        columns, valid = np.maximum(columns, 0), columns >= 0
        if len(task.candidates) <= FULL_RANKING_LIMIT:
            return EvalQueries(user.astype(np.int32), user_index, columns, valid)
        requested, place = np.unique(columns, return_inverse=True)
        return EvalQueries(
            user.astype(np.int32), user_index, place.reshape(columns.shape), valid, requested
        )
    all_columns = np.broadcast_to(
        np.arange(len(task.candidates)), (len(rows), len(task.candidates))
    )
    valid = all_columns != positive[:, None]
    if task.mask_seen:
        valid &= ~seen_candidates(task, user)[user_index]
    columns = np.concatenate([positive[:, None], all_columns], 1)
    return EvalQueries(
        user.astype(np.int32),
        user_index,
        columns,
        np.concatenate([np.ones((len(rows), 1), bool), valid], 1),
    )


def seen_candidates(task: Task, users: Ints) -> Bools:
    """Mark the candidates each user already had, (u, C); ``users`` rising."""
    log = task.history
    mine = np.isin(log.user, users) & (task.column[log.item] >= 0)
    seen = np.zeros((len(users), len(task.candidates)), bool)
    seen[np.searchsorted(users, log.user[mine]), task.column[log.item[mine]]] = True
    return seen


def chunks(task: Task) -> list[NDArray[np.intp]]:
    """Split row numbers so that a chunk holds at most USERS_PER_CHUNK distinct users; fewer where they face many candidates."""
    _, code = np.unique(task.rows.user, return_inverse=True)
    order = np.argsort(code, kind="stable")
    size = (
        USERS_PER_CHUNK
        if task.rows.negatives.shape[1]
        else max(
            1, min(USERS_PER_CHUNK, USERS_PER_CHUNK * FULL_RANKING_LIMIT // len(task.candidates))
        )
    )
    bounds = np.searchsorted(code[order], np.arange(size, code.max(initial=0) + size, size))
    return [part for part in np.split(order, bounds) if len(part)]


def rank_rows(scorer: Scorer, task: Task) -> Ranking:
    """Rank every row of the task."""
    rows = task.rows
    rank, n_others = np.empty(len(rows)), np.empty(len(rows), np.int64)
    for part in chunks(task):
        queries = make_queries(task, rows.select(part))
        rank[part] = rank_of_positive(
            queries.gather(scorer(queries.user, queries.requested)), queries.valid
        )
        n_others[part] = queries.valid[:, 1:].sum(1)
    return Ranking(rank, n_others, rows.user, rows.item)


def row_scores(score: Callable[[EvalQueries], Sequence[Scores]], task: Task) -> list[Scores]:
    """Read all rows' scores (m, 1 + k) off every array that ``score`` returns; in chunks where there are many."""
    parts = (
        chunks(task) if len(task.candidates) > FULL_RANKING_LIMIT else [np.arange(len(task.rows))]
    )
    found = []
    for part in parts:
        queries = make_queries(task, task.rows.select(part))
        found.append([queries.gather(scores) for scores in score(queries)])
    back = np.argsort(np.concatenate(parts))
    return [np.concatenate(scores)[back] for scores in zip(*found, strict=True)]


def rank_full(scorer: Scorer, task: Task) -> Ranking:
    """Rank every row of the task among its negatives and among all candidates, and keep what would be recommended.

    Of many candidates the negatives alone are ranked, where rows have them.
    """
    rows = task.rows
    sampled, known = bool(rows.negatives.shape[1]), not task.mask_seen
    if sampled and len(task.candidates) > FULL_RANKING_LIMIT:
        return rank_rows(scorer, task)
    rank, n_others = np.empty(len(rows)), np.empty(len(rows), np.int64)
    full_rank, full_candidates, top = np.empty(len(rows)), np.empty(len(rows), np.int64), []
    for part in chunks(task):
        queries = make_queries(task, rows.select(part))
        scores = np.asarray(scorer(queries.user))
        rank[part] = rank_of_positive(queries.gather(scores), queries.valid)
        n_others[part] = queries.valid[:, 1:].sum(1)
        free = (
            np.ones(scores.shape, bool) if known else ~seen_candidates(task, queries.user)
        )  # (u, C)
        top += [
            _top_items(line, task.candidates)
            for line in np.where(free & ~np.isnan(scores), scores, -np.inf)
        ]
        if sampled:
            positive = queries.columns[:, 0]
            free[queries.user_index, positive] = False
            full_rank[part], full_candidates[part] = _rank_among(
                scores, free, queries.user_index, positive
            )
    best = np.array(top, np.int32).reshape(-1, TOP)
    found = Ranking(rank, n_others, rows.user, rows.item, top=best)
    return (
        found._replace(full_rank=full_rank, full_candidates=full_candidates) if sampled else found
    )


def _top_items(scores: Scores, candidates: Ints) -> Ints:
    """Return the item rows of the TOP best candidates; -inf is left out."""
    best = candidates[top_k(scores.astype(np.float32), TOP)]
    return np.pad(best, (0, TOP - len(best)), constant_values=-1)


def _rank_among(
    scores: Scores, free: Bools, of: NDArray[np.intp], positive: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rank each row's positive among its user's free candidates: ``scores`` and ``free`` (u, C), ``of`` (m,)."""
    clean = np.where(np.isnan(scores), -np.inf, scores)
    rank, n_candidates = np.empty(len(of)), np.empty(len(of), np.int64)
    order = np.argsort(of, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
        row = of[mine[0]]
        rising = np.sort(clean[row, free[row]])
        own = clean[row, positive[mine]]
        below, upto = np.searchsorted(rising, own), np.searchsorted(rising, own, side="right")
        rank[mine] = 1.0 + (len(rising) - upto) + 0.5 * (upto - below)
        n_candidates[mine] = len(rising)
    return rank, n_candidates


def ndcg(scorer: Scorer, task: Task, k: int = 10) -> float:
    """Return the mean NDCG@k over the task's rows."""
    return float(METRICS["ndcg"](rank_rows(scorer, task).rank, k).mean())


def sample_rows(task: Task, most: int = 2000) -> Task:
    """Return the task with at most ``most`` rows, drawn once with a fixed seed; fewer where each asks for many."""
    if not task.rows.negatives.shape[1] and len(task.candidates) > FULL_RANKING_LIMIT:
        most = max(50, most * FULL_RANKING_LIMIT // len(task.candidates))
    if len(task.rows) <= most:
        return task
    pick = np.sort(np.random.default_rng(0).choice(len(task.rows), most, replace=False))
    return replace(task, rows=task.rows.select(pick))
