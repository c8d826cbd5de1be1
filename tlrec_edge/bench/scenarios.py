"""Scenarios, as MLPerf Inference names them; each is a function from a recommender and requests to measured rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tlrec_edge.arguments import User
from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.latency import Latencies, time_calls
from tlrec_edge.bench.requests import Requests
from tlrec_edge.bench.result import Row
from tlrec_edge.errors import BundleError
from tlrec_edge.runtime import Recommender

Scenario = Callable[[Recommender, Requests, BenchConfig], Iterator[Row]]
_CHECKED = 8


def single_stream(rec: Recommender, requests: Requests, config: BenchConfig) -> Iterator[Row]:
    """Score n candidates for one user, one request after another; the state encoded each time, or given."""
    users = _users(rec, requests)
    for n in config.candidates:
        items = requests.candidates(n)
        _check_agreement(rec, requests.histories, items)
        for state, given in users.items():
            measured = _measure(partial(_score, rec, given, items), config)
            yield Row("single-stream", state, f"{n:,} candidates" if n > 1 else "1 candidate", n, measured)


def top_k(rec: Recommender, requests: Requests, config: BenchConfig) -> Iterator[Row]:
    """Rank the whole catalogue for one user, without the history's own items."""
    for state, given in _users(rec, requests).items():
        measured = _measure(partial(_recommend, rec, given, config.k), config)
        yield Row("top-k", state, f"top {config.k} of {len(rec):,}", len(rec), measured)


SCENARIOS: dict[str, Scenario] = {"single-stream": single_stream, "top-k": top_k}


def _users(rec: Recommender, requests: Requests) -> dict[str, Sequence[User]]:
    return {"encoded": requests.histories, "given": [rec.user_state(history) for history in requests.histories]}


def _score(rec: Recommender, users: Sequence[User], items: list[list[str]], at: int) -> None:
    rec.score(users[at], items[at])


def _recommend(rec: Recommender, users: Sequence[User], k: int, at: int) -> None:
    rec.recommend(users[at], k)


def _measure(call: Callable[[int], Any], config: BenchConfig) -> Latencies:
    return time_calls(call, config.pool, seconds=config.seconds, min_queries=config.min_queries, warmup=config.warmup)


def _check_agreement(rec: Recommender, histories: list[list[str]], items: list[list[str]]) -> None:
    """Time nothing that is wrong: a pair must score the same alone as in its list. Raises BundleError."""
    tolerance = 0.0 if rec.exact else 1e-4
    for history, candidates in zip(histories[:_CHECKED], items, strict=False):
        together = rec.score(history, candidates)
        alone = np.array([rec.score(history, [item])[0] for item in candidates[:_CHECKED]])
        worst = float(np.abs(together[:_CHECKED] - alone).max())
        if not worst <= tolerance:
            raise BundleError(f"a pair's score alone and in a list differ by {worst:g}; export the bundle again")
