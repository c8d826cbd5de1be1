"""One system on the bench, and the requests it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.config import TOP_K, BenchConfig
from tlrec_edge.bench.drivers import Limits
from tlrec_edge.bench.requests import AnyRequests, Replay
from tlrec_edge.bench.system import Request, Source, System
from tlrec_edge.runtime.arguments import User


@dataclass(frozen=True)
class Shape:
    """Requests of one shape; ``scored`` candidates each."""

    label: str
    scored: int
    requests: Sequence[Request]

    def with_states(self, states: Sequence[User]) -> Shape:
        """Return the same requests with the user's state in place of the history."""
        return replace(
            self,
            requests=[
                replace(r, user=state) for r, state in zip(self.requests, states, strict=True)
            ],
        )


@dataclass(frozen=True)
class Lab:
    """An open system with its requests; ``source`` opens further ones like it in other processes."""

    source: Source
    system: System
    requests: AnyRequests
    config: BenchConfig
    clock: Clock = WALL

    @property
    def limits(self) -> Limits:
        return Limits(self.config.seconds, self.config.min_queries, self.config.warmup)

    @cached_property
    def load(self) -> Shape:
        """Return the requests of the scenarios of load."""
        if self.config.load == TOP_K:
            return self.top_k(self.requests)
        return self.shape(self.requests, min(self.config.load, self.requests.ids.candidates))

    def shapes(self) -> list[Shape]:
        """Return the shapes of single-stream: each count of candidates with each length of history."""
        lengths = self.config.histories or (None,)
        variants = [self.requests if n is None else self.requests.with_history(n) for n in lengths]
        if isinstance(self.requests, Replay) and self.requests.own_candidates:
            return [self.shape(self.requests, TOP_K)]
        return [self.shape(requests, n) for requests in variants for n in self.config.candidates]

    def shape(self, requests: AnyRequests, n: int) -> Shape:
        """Return requests of n candidates; a replay that has its own keeps those."""
        own_candidates = requests.own_candidates if isinstance(requests, Replay) else []
        lists = own_candidates or requests.candidates(n)
        mean = round(sum(map(len, lists)) / len(lists))
        label = f"{mean:,} candidates" if mean > 1 else "1 candidate"
        return self._shape(requests, f"{label}, replayed" if own_candidates else label, mean, lists)

    def top_k(self, requests: AnyRequests) -> Shape:
        """Return requests for the best of the whole catalogue."""
        n = requests.ids.candidates
        return self._shape(requests, f"top {self.config.k} of {n:,}", n, [None] * requests.count)

    def _shape(
        self, requests: AnyRequests, label: str, scored: int, lists: Sequence[list[str] | None]
    ) -> Shape:
        if self.config.histories:
            label = f"{label}, history {requests.history_length}"
        built = [
            Request(user, items, self.config.k)
            for user, items in zip(requests.histories, lists, strict=True)
        ]
        return Shape(label, scored, built)


def caller(
    system: System, requests: Sequence[Request], query_size: int = 1
) -> Callable[[int], Any]:
    """Return a function that has the system answer query number ``at``, of ``query_size`` requests, in one call.

    Queries share no request until the whole pool was used, so that they never profit from one another.
    """
    size, answer = len(requests), system.answer
    queries = [
        [requests[(at * query_size + i) % size] for i in range(query_size)] for at in range(size)
    ]
    return lambda at: answer(queries[at])


def batch_caller(system: System, requests: Sequence[Request]) -> Callable[[Sequence[int]], Any]:
    """Return a function that has the system answer the requests of these numbers, in one call."""
    answer = system.answer
    return lambda numbers: answer([requests[number] for number in numbers])
