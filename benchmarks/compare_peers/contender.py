"""The interface of a contender: an adapter that gives every system the same requests.

The modules that a worker imports use nothing of tlrec-edge, because the worker of an older version
has that version's modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .data import Data

Floats: TypeAlias = NDArray[np.float32]


class Answer(NamedTuple):
    """Scored items, in any order."""

    rows: NDArray[np.int64]
    """Rows of the catalogue."""
    scores: Floats


class Call(NamedTuple):
    """A call in three steps, of which only ``run`` is timed."""

    prepare: Callable[[int], tuple[Any, ...]]
    """Return the arguments of a case by its number, in the types that the system takes."""
    run: Callable[..., Any]
    read: Callable[[int, Any], Answer] | None
    """Convert the number of a case and the result of ``run`` into an answer; None: no check."""


class Contender:
    """A system that is loaded and ready.

    Its tasks are methods that return a ``Call``; a system omits what it can't do. ``request``: a
    history and 100 candidates to scores. ``cached``: the user's vector or state and 1,000
    candidates to scores. ``top``, ``top_exact``, ``top100``: a vector or state to the best 10 or
    100 of all items.
    """

    exact: bool = True
    """Whether ``top`` must return the best items; if not, its recall is reported."""
    tolerance: float = 1e-4
    """Largest allowed error of a score, in standard deviations of all scores."""
    about: str = ""
    """How the system is run, for the report."""
    package: str | None = None
    """The package to import before torch: it is quick to find out that it is not installed."""

    def __init__(self, data: Data, model: str) -> None:
        self.data, self.model = data, model

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        """Write the files that the system loads; called once, before anything is measured."""

    def reference(self, task: str, i: int) -> Floats | None:
        """Return the true scores of all items in case ``i``; None if they are the shared ones."""
        return None

    def tune(self) -> dict[str, Any]:
        """Choose how much recall to give up for speed, and return the choice."""
        return {}

    def call(self, task: str) -> Call:
        """Return the call of a task. Raises NotImplementedError."""
        method = getattr(self, task, None)
        if method is None:
            raise NotImplementedError(f"it has no task {task!r}")
        call: Call = method()
        return call
