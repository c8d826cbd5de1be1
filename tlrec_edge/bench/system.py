"""Systems under test: anything that answers requests, such as a bundle, a function or a server."""

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
"""Number of requests, and of candidates in each, whose scores are checked before a run."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a user, and what to score."""

    user: User
    """A history of item ids, or a user state."""
    candidates: list[str] | None
    """Ids to score; None asks for the ``k`` best items of the full catalogue."""
    k: int = 10


class System(Protocol):
    """A system under test; several threads may call it."""

    def answer(self, requests: Sequence[Request]) -> object:
        """Answer several requests in one call."""


class Source(Protocol):
    """Opens a system; each process of a run opens its own."""

    @property
    def name(self) -> str:
        """The name to report."""

    def open(self) -> AbstractContextManager[System]:
        """Return a context manager that opens and closes the system."""


@dataclass(frozen=True)
class BundleSource:
    """A bundle folder."""

    path: Path
    cache: int
    """Number of user states that the recommender caches."""

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @contextmanager
    def open(self) -> Iterator[BundleSystem]:
        """Yield the system. Raises BundleError if the bundle can't be opened."""
        with Recommender.open(self.path, cache=self.cache) as rec:
            yield BundleSystem(rec, self.path)


class BundleSystem:
    """A recommender that answers requests one by one."""

    def __init__(self, rec: Recommender, path: Path) -> None:
        self._rec, self._path = rec, path
        self.user_state = rec.user_state

    def answer(self, requests: Sequence[Request]) -> None:
        """Score or recommend for each request."""
        for request in requests:
            if request.candidates is None:
                self._rec.recommend(request.user, request.k)
            else:
                self._rec.score(request.user, request.candidates)

    def evict(self) -> None:
        """Evict the bundle from the page cache, if the operating system can."""
        evict(self._path)

    def is_evicted(self, request: Request) -> bool:
        """Return whether ``request`` reads from disk after an eviction."""
        return reads_from_disk(self._path, lambda: self.answer([request]))

    def check(self, requests: Sequence[Request]) -> None:
        """Check that a pair scores the same alone and in a list, so that no wrong score is timed.

        Raises BundleError if it does not.
        """
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
                    f"a pair scores differently alone and in a list (by {worst:g}): "
                    "export the bundle again"
                )
