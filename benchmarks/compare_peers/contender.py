"""What a contender is: an adapter that answers the same questions as all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .data import Data

Floats = NDArray[np.float32]


class Answer(NamedTuple):
    """Scored items: rows of the catalogue and a score each, in any order."""

    rows: NDArray[np.int64]
    scores: Floats


class Call(NamedTuple):
    """One question in three steps, of which only ``run`` is timed."""

    prepare: Callable[[int], tuple[Any, ...]]
    """Question number -> arguments as the contender takes them."""
    run: Callable[..., Any]
    read: Callable[[int, Any], Answer] | None
    """Question number and what ``run`` returned -> the answer; None where there is nothing to compare."""


class Contender:
    """A system that is loaded and ready. Its tasks are methods that return a ``Call``:

    ``request`` (a history, 100 candidates -> scores), ``cached`` (the user's vector or state, 1,000 candidates),
    ``top`` (the same, the best 10 of all), ``top_exact``, ``top100``. A system leaves out what it can't do.
    """

    exact: bool = True
    """Whether the best items must be the best; else recall is stated."""
    tolerance: float = 1e-4
    """How far a score may be off, as a share of the spread of all scores."""
    about: str = ""
    """How it is run, for the report."""

    def __init__(self, data: Data, model: str) -> None:
        self.data, self.model = data, model

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        """Write the files that it loads; runs once, before anything is measured."""

    def reference(self, task: str, i: int) -> Floats | None:
        """Return the true scores of all items for question i where its weights are its own; None: the shared ones."""
        return None

    def tune(self) -> dict[str, Any]:
        """Set what trades recall for speed, where there is such a thing; return what was chosen."""
        return {}

    def call(self, task: str) -> Call:
        """Return the call of a task. Raises NotImplementedError."""
        found = getattr(self, task, None)
        if found is None:
            raise NotImplementedError(f"it has no task '{task}'")
        made: Call = found()
        return made
