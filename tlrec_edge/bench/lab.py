"""One open system, and the requests to send to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.config import TOP_K, BenchConfig
from tlrec_edge.bench.drivers import Call, Limits
from tlrec_edge.bench.requests import AnyRequests, Replay
from tlrec_edge.bench.system import Request, Source, System
from tlrec_edge.core.counts import counted
from tlrec_edge.runtime.arguments import User


@dataclass(frozen=True)
class Shape:
    """Requests of one shape."""

    label: str
    scored: int
    """Candidates scored in each request."""
    requests: Sequence[Request]

    def with_states(self, states: Sequence[User]) -> Shape:
        """Return the same requests with user states instead of histories."""
        pairs = zip(self.requests, states, strict=True)
        return replace(self, requests=[replace(request, user=state) for request, state in pairs])


@dataclass(frozen=True)
class Lab:
    """An open system with its requests and settings."""

    source: Source
    """Opens the same system again in other processes."""
    system: System
    requests: AnyRequests
    config: BenchConfig
    clock: Clock = WALL

    @property
    def limits(self) -> Limits:
        """When each run ends."""
        return Limits(self.config.seconds, self.config.min_queries, self.config.warmup)

    @cached_property
    def load(self) -> Shape:
        """The requests of the scenarios under load."""
        if self.config.load == TOP_K:
            return self.top_k(self.requests)
        return self.shape(self.requests, min(self.config.load, self.requests.ids.candidates))

    def shapes(self) -> list[Shape]:
        """Return the shapes of single-stream: every number of candidates with every history length.

        A replay with its own candidates has one shape.
        """
        lengths = self.config.histories or (None,)
        variants = [self.requests if n is None else self.requests.with_history(n) for n in lengths]
        if isinstance(self.requests, Replay) and self.requests.own_candidates:
            return [self.shape(self.requests, TOP_K)]
        return [self.shape(requests, n) for requests in variants for n in self.config.candidates]

    def shape(self, requests: AnyRequests, n: int) -> Shape:
        """Return requests with n candidates each, or with a replay's own candidates."""
        own_candidates = requests.own_candidates if isinstance(requests, Replay) else []
        lists = own_candidates or requests.candidates(n)
        mean = round(sum(map(len, lists)) / len(lists))
        label = counted(mean, "candidate")
        return self._shape(requests, f"{label}, replayed" if own_candidates else label, mean, lists)

    def top_k(self, requests: AnyRequests) -> Shape:
        """Return requests for the best items of the full catalogue."""
        n = requests.ids.candidates
        return self._shape(requests, f"top {self.config.k} of {n:,}", n, [None] * requests.count)

    def _shape(
        self, requests: AnyRequests, label: str, scored: int, lists: Sequence[list[str] | None]
    ) -> Shape:
        if self.config.histories:
            label = f"{label}, history {requests.history_length}"
        pairs = zip(requests.histories, lists, strict=True)
        return Shape(
            label, scored, [Request(history, items, self.config.k) for history, items in pairs]
        )


def caller(system: System, requests: Sequence[Request], query_size: int = 1) -> Call:
    """Return a function that has the system answer one query of ``query_size`` requests per call.

    No request repeats before the whole pool is used, so queries do not profit from each other's
    caching.
    """
    size, answer = len(requests), system.answer
    queries = [
        [requests[(at * query_size + i) % size] for i in range(query_size)] for at in range(size)
    ]
    return lambda at: answer(queries[at])


def batch_caller(system: System, requests: Sequence[Request]) -> Callable[[Sequence[int]], Any]:
    """Return a function that has the system answer the requests of these numbers in one call."""
    answer = system.answer
    return lambda numbers: answer([requests[number] for number in numbers])
