"""A user as the search indexes see it: the vectors and item-item contributions of its scores."""

from __future__ import annotations

from dataclasses import dataclass

from tlrec_edge.core.sparse import SparseSum
from tlrec_edge.types import Floats, Indices


@dataclass(eq=False, slots=True)
class UserState:
    """An encoded user, from ``Recommender.user_state``. Opaque, and valid for its bundle only."""

    bundle_id: str
    """The bundle that the state belongs to."""
    deep: Floats
    """User vector of the two-tower part, (d,); integers if scores are deterministic."""
    interest: Floats
    """User vector of the interest part, (r,), or empty."""
    deep_scale: Floats
    """Factor of the dot product with ``deep`` in a score, ()."""
    interest_scale: Floats
    """Factor of the dot product with ``interest`` in a score, ()."""
    wide: SparseSum
    """Item-item contributions of the history to single candidates."""
    seen: Indices
    """Rows of all known items of the history, ascending."""
    clipped: bool = False
    """Whether the vectors exceeded the bundle's integer range, so that rounding errors are larger
    than the manifest states."""

    @property
    def nbytes(self) -> int:
        """Size in bytes of the arrays."""
        return self.deep.nbytes + self.interest.nbytes + self.wide.nbytes + self.seen.nbytes

    @property
    def max_nbytes(self) -> int:
        """Size in bytes of the arrays once ``wide`` is summed."""
        return self.deep.nbytes + self.interest.nbytes + self.wide.max_nbytes + self.seen.nbytes
