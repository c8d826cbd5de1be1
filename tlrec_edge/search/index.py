"""What the search indexes have in common, so that a caller can try one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from tlrec_edge.core.row_ranges import RowRanges
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices

ScoreFunction = Callable[[Indices | RowRanges], Floats]
"""Return the scores of the candidates at some positions, exactly as a full scan computes them."""


class TopK(NamedTuple):
    """The best candidates, best first; of equal scores the lower position comes first."""

    positions: Indices
    """Positions of the candidates, (k,)."""
    scores: Floats
    """Their scores, (k,)."""


class Index(Protocol):
    """A way to find the best candidates without scoring all of them."""

    def search(
        self, state: UserState, k: int, excluded: Indices, score: ScoreFunction
    ) -> TopK | None:
        """Return the ``k`` best candidates except the ``excluded`` positions.

        Return None if a full scan would be cheaper, or if the index cannot answer for this user.
        """
