"""Which candidates a recommendation may contain: the caller's ``allow`` and ``exclude``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.ids import ItemId, preview
from tlrec_edge.bundle.item_rows import ItemRows, as_list
from tlrec_edge.errors import ArgumentError
from tlrec_edge.runtime.catalogue import Catalogue
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Bools, Indices

Items = Sequence[ItemId] | NDArray[Any] | ItemRows
"""Item ids, or their rows from ``Recommender.rows``."""
Exclude = str | Sequence[ItemId] | ItemRows | None
"""Item ids or their rows, "history" for the items of the user's history, or None."""


def is_mask(allow: Items) -> TypeGuard[Bools]:
    return isinstance(allow, np.ndarray) and allow.dtype == np.bool_


def allowed_positions(catalogue: Catalogue, allow: Items) -> Indices:
    """Return the positions of items or of a mask over the candidates, ascending.

    Raises ArgumentError for a mask of another shape.
    """
    if is_mask(allow):
        check_mask(catalogue, allow)
        return np.flatnonzero(allow)
    rows = catalogue.items.rows(as_list(allow, "allow", ordered=False))
    positions = catalogue.items.positions(rows)
    return np.unique(positions[positions >= 0])


def check_mask(catalogue: Catalogue, mask: Bools) -> None:
    """Raise ArgumentError unless a mask has an entry for each candidate.

    One that was made before items were added leaves those out.
    """
    sizes = len(catalogue) - len(catalogue.added), len(catalogue)
    if mask.ndim != 1 or len(mask) not in sizes:
        raise ArgumentError(
            f"the mask `allow` has shape {mask.shape}; there are {len(catalogue)} candidates"
        )


def excluded_positions(catalogue: Catalogue, state: UserState, exclude: Exclude) -> Indices:
    """Return the positions of the excluded candidates, in any order.

    Raises ArgumentError for a word other than "history".
    """
    if exclude is None:
        return np.zeros(0, np.intp)
    if not isinstance(exclude, str):
        rows = catalogue.items.rows(as_list(exclude, "exclude", ordered=False))
    elif exclude == "history":
        rows = state.seen
    else:
        raise ArgumentError(
            f"exclude = {preview(exclude)}; expected 'history', None or a list of item ids"
        )
    positions = catalogue.items.positions(rows)
    return positions[positions >= 0]
