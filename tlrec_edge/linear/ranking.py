"""Rank the positives of a task's evaluation rows by any scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, Self

import numpy as np

from tlrec_edge.core.metrics import METRICS, rank_of_positive
from tlrec_edge.core.result_cache import Arrays
from tlrec_edge.core.topk import top_k
from tlrec_edge.data.dataset import EvalRows
from tlrec_edge.data.task import Task
from tlrec_edge.types import Bools, Doubles, Indices, Ints, Longs, Scores

Columns = Ints | slice
"""Candidates as indices into ``task.candidates``."""
ALL = slice(None)
TOP = 10
"""Recommendations that ``rank_full`` keeps for each user."""
USERS_PER_CHUNK = 256
FULL_RANKING_LIMIT = 20_000
"""Largest number of candidates that are all scored. Above it, only those in the rows are."""
MIN_SAMPLED_ROWS = 50


class Scorer(Protocol):
    """Scores the task's candidates in ``columns`` for user rows (u,); returns (u, columns)."""

    def __call__(self, users: Ints, columns: Columns = ALL) -> Scores: ...


class Ranking(NamedTuple):
    """The ranks of the positives of m evaluation rows.

    Attributes:
        rank: (m,) rank of the positive, 1 = first; a tie counts half.
        n_candidates: (m,) candidates that the positive was ranked against.
        user: (m,) user rows.
        item: (m,) item rows of the positives.
        full_rank: (m,) rank against all candidates except items the user already had and other
            positives; None if the rows have no sampled negatives (then it is ``rank``).
        full_candidates: (m,) candidates of ``full_rank``.
        top: (u, TOP) item rows recommended to each distinct user, -1 if there are fewer.
    """

    rank: Doubles
    n_candidates: Longs
    user: Ints
    item: Ints
    full_rank: Doubles | None = None
    full_candidates: Longs | None = None
    top: Ints | None = None

    def to_arrays(self) -> Arrays:
        return {name: array for name, array in self._asdict().items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        return cls(**arrays)


@dataclass(frozen=True)
class EvalQueries:
    """A chunk of m evaluation rows of u distinct users.

    Attributes:
        user: (u,) distinct user rows.
        user_index: (m,) index into ``user``.
        columns: (m, 1 + k) indices into ``requested``: the positive, then the others.
        valid: (m, 1 + k) False for entries that only fill a row up, or that are not ranked.
        requested: the candidates to score.
    """

    user: Ints
    user_index: Indices
    columns: Longs
    valid: Bools
    requested: Columns = field(default_factory=lambda: ALL)

    def gather(self, scores: Scores) -> Scores:
        """Return the rows' scores (m, 1 + k) from the users' scores (u, requested)."""
        return scores[self.user_index[:, None], self.columns]

    def gather_items(self, values: Scores) -> Scores:
        """Return the rows' values (m, 1 + k) from one value per candidate (C,)."""
        return values[self.requested][self.columns]


def make_queries(task: Task, rows: EvalRows) -> EvalQueries:
    """Turn evaluation rows into candidate columns.

    A row without negatives is ranked against all candidates.
    """
    if rows.negatives.shape[1]:
        return _sampled_queries(task, rows)
    user, user_index = np.unique(rows.user, return_inverse=True)
    positive = task.column[rows.item].astype(np.int64)
    n_candidates = len(task.candidates)
    every = np.broadcast_to(np.arange(n_candidates), (len(rows), n_candidates))
    valid = every != positive[:, None]
    if task.mask_seen:
        valid &= ~seen_candidates(task, user)[user_index]
    columns = np.concatenate([positive[:, None], every], 1)
    valid = np.concatenate([np.ones((len(rows), 1), bool), valid], 1)
    return EvalQueries(user.astype(np.int32), user_index, columns, valid)


def _sampled_queries(task: Task, rows: EvalRows) -> EvalQueries:
    user, user_index = np.unique(rows.user, return_inverse=True)
    user = user.astype(np.int32)
    positive = task.column[rows.item].astype(np.int64)
    others = np.where(rows.negatives >= 0, task.column[rows.negatives], -1).astype(np.int64)
    columns = np.concatenate([positive[:, None], others], 1)
    columns, valid = np.maximum(columns, 0), columns >= 0
    if len(task.candidates) <= FULL_RANKING_LIMIT:
        return EvalQueries(user, user_index, columns, valid)
    requested, index = np.unique(columns, return_inverse=True)
    return EvalQueries(user, user_index, index.reshape(columns.shape), valid, requested)


def seen_candidates(task: Task, users: Ints) -> Bools:
    """Mark the candidates that each user already had. Shape (u, C); ``users`` must be sorted."""
    log = task.history
    relevant = np.isin(log.user, users) & (task.column[log.item] >= 0)
    seen = np.zeros((len(users), len(task.candidates)), bool)
    seen[np.searchsorted(users, log.user[relevant]), task.column[log.item[relevant]]] = True
    return seen


def query_chunks(task: Task) -> Iterator[tuple[Indices, EvalQueries]]:
    """Yield the task's rows in chunks: their positions and their queries."""
    for positions in _chunk_positions(task):
        yield positions, make_queries(task, task.rows.select(positions))


def _chunk_positions(task: Task) -> list[Indices]:
    """Split the rows so that a chunk has at most USERS_PER_CHUNK distinct users.

    Chunks have fewer users if rows are ranked against all of very many candidates, so that the
    scores of a chunk take a bounded amount of memory.
    """
    n_users = USERS_PER_CHUNK
    if not task.rows.negatives.shape[1]:
        affordable = USERS_PER_CHUNK * FULL_RANKING_LIMIT // len(task.candidates)
        n_users = max(1, min(USERS_PER_CHUNK, affordable))
    _, code = np.unique(task.rows.user, return_inverse=True)
    order = np.argsort(code, kind="stable")
    limits = np.arange(n_users, code.max(initial=0) + n_users, n_users)
    parts = np.split(order, np.searchsorted(code[order], limits))
    return [part for part in parts if len(part)]


def rank_rows(scorer: Scorer, task: Task) -> Ranking:
    """Rank the positive of every row of the task."""
    rows = task.rows
    rank, n_candidates = np.empty(len(rows)), np.empty(len(rows), np.int64)
    for positions, queries in query_chunks(task):
        scores = queries.gather(scorer(queries.user, queries.requested))
        rank[positions] = rank_of_positive(scores, queries.valid)
        n_candidates[positions] = queries.valid[:, 1:].sum(1)
    return Ranking(rank, n_candidates, rows.user, rows.item)


def row_scores(score: Callable[[EvalQueries], Sequence[Scores]], task: Task) -> list[Scores]:
    """Return the scores (m, 1 + k) of all rows for each of the arrays that ``score`` returns.

    With many candidates, the rows are scored in chunks.
    """
    if len(task.candidates) <= FULL_RANKING_LIMIT:
        queries = make_queries(task, task.rows)
        return [queries.gather(scores) for scores in score(queries)]
    positions, chunks = [], []
    for part, queries in query_chunks(task):
        positions.append(part)
        chunks.append([queries.gather(scores) for scores in score(queries)])
    in_order = np.argsort(np.concatenate(positions))
    return [np.concatenate(scores)[in_order] for scores in zip(*chunks, strict=True)]


def rank_full(scorer: Scorer, task: Task) -> Ranking:
    """Rank every row among its negatives and among all candidates, and keep the recommendations.

    If the rows have negatives and there are more than FULL_RANKING_LIMIT candidates, the rows are
    ranked among their negatives only, and no recommendations are kept.
    """
    rows, has_negatives = task.rows, bool(task.rows.negatives.shape[1])
    if has_negatives and len(task.candidates) > FULL_RANKING_LIMIT:
        return rank_rows(scorer, task)
    rank, n_candidates = np.empty(len(rows)), np.empty(len(rows), np.int64)
    full_rank, full_candidates = np.empty(len(rows)), np.empty(len(rows), np.int64)
    top = []
    for positions, queries in query_chunks(task):
        scores = np.asarray(scorer(queries.user))
        rank[positions] = rank_of_positive(queries.gather(scores), queries.valid)
        n_candidates[positions] = queries.valid[:, 1:].sum(1)
        ranked = np.ones(scores.shape, bool)
        if task.mask_seen:
            ranked = ~seen_candidates(task, queries.user)
        top += _recommendations(scores, ranked, task.candidates)
        if has_negatives:
            full_rank[positions], full_candidates[positions] = _full_ranks(scores, ranked, queries)
    ranking = Ranking(rank, n_candidates, rows.user, rows.item, top=_stack_top(top))
    if not has_negatives:
        return ranking
    return ranking._replace(full_rank=full_rank, full_candidates=full_candidates)


def _recommendations(scores: Scores, ranked: Bools, candidates: Ints) -> list[Ints]:
    """Return the item rows of each user's TOP best candidates, -1 if there are fewer."""
    eligible = np.where(ranked & ~np.isnan(scores), scores, -np.inf).astype(np.float32)
    best = [candidates[top_k(user_scores, TOP)] for user_scores in eligible]
    return [np.pad(items, (0, TOP - len(items)), constant_values=-1) for items in best]


def _stack_top(top: Sequence[Ints]) -> Ints:
    return np.array(top, np.int32).reshape(-1, TOP)


def _full_ranks(scores: Scores, ranked: Bools, queries: EvalQueries) -> tuple[Doubles, Longs]:
    """Rank each row's positive among the candidates ``ranked`` (u, C) that are not positives.

    The scores of a user are sorted once for all of the user's rows.
    """
    positive = queries.columns[:, 0]
    is_other = ranked.copy()
    is_other[queries.user_index, positive] = False
    scores = np.where(np.isnan(scores), -np.inf, scores)
    rank = np.empty(len(positive))
    n_candidates = np.empty(len(positive), np.int64)
    for user in range(len(queries.user)):
        rows = np.flatnonzero(queries.user_index == user)
        ascending = np.sort(scores[user, is_other[user]])
        own = scores[user, positive[rows]]
        below = np.searchsorted(ascending, own)
        not_above = np.searchsorted(ascending, own, side="right")
        rank[rows] = 1.0 + (len(ascending) - not_above) + 0.5 * (not_above - below)
        n_candidates[rows] = len(ascending)
    return rank, n_candidates


def ndcg(scorer: Scorer, task: Task, k: int = 10) -> float:
    """Return the mean NDCG@k over the task's rows."""
    return float(METRICS["ndcg"](rank_rows(scorer, task).rank, k).mean())


def sample_rows(task: Task, max_rows: int = 2000) -> Task:
    """Return the task with at most ``max_rows`` rows, drawn with a fixed seed.

    Rows without negatives are ranked against all candidates: with more than FULL_RANKING_LIMIT of
    them, fewer rows are drawn.
    """
    if not task.rows.negatives.shape[1] and len(task.candidates) > FULL_RANKING_LIMIT:
        affordable = max_rows * FULL_RANKING_LIMIT // len(task.candidates)
        max_rows = max(MIN_SAMPLED_ROWS, affordable)
    if len(task.rows) <= max_rows:
        return task
    drawn = np.random.default_rng(0).choice(len(task.rows), max_rows, replace=False)
    return replace(task, rows=task.rows.select(np.sort(drawn)))
