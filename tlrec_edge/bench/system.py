"""What is measured: a system under test answers queries. A bundle is one; so is a reader's function, or a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tlrec_edge.bench.page_cache import evict, reads_from_disk
from tlrec_edge.errors import BundleError
from tlrec_edge.runtime.arguments import User
from tlrec_edge.runtime.recommender import Recommender

_CHECKED = 8


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a history of item ids (or a user's state), and what to score.

    ``candidates`` None asks for the ``k`` best items of the whole catalogue.
    """

    user: User
    candidates: list[str] | None
    k: int = 10


class System(Protocol):
    """A system under test. It answers several requests in one call, and may be called from several threads."""

    def answer(self, requests: Sequence[Request]) -> object: ...


class Source(Protocol):
    """Where a system comes from: each process of a run opens its own."""

    @property
    def name(self) -> str: ...

    def open(self) -> AbstractContextManager[System]: ...


@dataclass(frozen=True)
class BundleSource:
    """A bundle folder, opened with a cache of ``cache`` user states."""

    path: Path
    cache: int

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @contextmanager
    def open(self) -> Iterator[BundleSystem]:
        with Recommender.open(self.path, cache=self.cache) as rec:
            yield BundleSystem(rec, self.path)


class BundleSystem:
    """A recommender, answering one request after another."""

    def __init__(self, rec: Recommender, path: Path) -> None:
        self._rec, self._path = rec, path
        self.user_state = rec.user_state

    def answer(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if request.candidates is None:
                self._rec.recommend(request.user, request.k)
            else:
                self._rec.score(request.user, request.candidates)

    def evict(self) -> None:
        """Put the bundle out of the page cache, where the system can."""
        evict(self._path)

    def is_evicted(self, request: Request) -> bool:
        """Say whether ``request`` has to read from disk what was put out of the page cache."""
        return reads_from_disk(self._path, lambda: self.answer([request]))

    def check(self, requests: Sequence[Request]) -> None:
        """Time nothing that is wrong: a pair must score the same alone as in its list. Raises BundleError."""
        tolerance = 0.0 if self._rec.deterministic else 1e-4
        for request in requests[:_CHECKED]:
            candidates = request.candidates or []
            together = self._rec.score(request.user, candidates)[:_CHECKED]
            alone = np.array(
                [self._rec.score(request.user, [item])[0] for item in candidates[:_CHECKED]]
            )
            worst = float(np.abs(together - alone).max())
            if not worst <= tolerance:
                raise BundleError(
                    f"a pair's score alone and in a list differ by {worst:g}; export the bundle again"
                )
