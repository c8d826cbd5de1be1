"""A user as an index sees one: the vectors and item-item contributions that scores are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.sparse import SparseSum
from tlrec_edge.types import Floats


@dataclass(eq=False, slots=True)
class UserState:
    """Opaque: a user vector on the scale it is scored with and the wide part's sum. Belongs to its bundle."""

    deep: Floats
    interest: Floats
    deep_scale: Floats
    interest_scale: Floats
    wide: SparseSum
    seen: NDArray[np.intp]
    """Rows of all known items of the history."""
    clipped: bool = False
    """Whether the vector did not fit the bundle's scale: the stated error of the exact path does not hold then."""

    @property
    def nbytes(self) -> int:
        return self.deep.nbytes + self.interest.nbytes + self.wide.nbytes + self.seen.nbytes
