"""Which candidates a recommendation may name: what callers allow and exclude, as places in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.ids import ItemId
from tlrec_edge.bundle.item_rows import ItemRows, as_list
from tlrec_edge.errors import DataError
from tlrec_edge.runtime.candidates import Catalogue
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Indices

Items = Sequence[ItemId] | NDArray[Any] | ItemRows
"""Item ids, or rows that ``Recommender.rows`` gave for them."""
Exclude = str | Sequence[ItemId] | ItemRows | None
"""Item ids or their rows, "history" for the user's own, None for nothing."""


def is_mask(allow: Items) -> bool:
    return isinstance(allow, np.ndarray) and allow.dtype == np.bool_


def allowed_positions(catalogue: Catalogue, allow: Items) -> Indices:
    """Return the places, rising, of items or of a mask over the candidates. Raises DataError for another mask."""
    if isinstance(allow, np.ndarray) and is_mask(allow):
        if allow.ndim != 1 or len(allow) not in (catalogue.shape.candidates, len(catalogue)):
            raise DataError(
                f"the mask `allow` has shape {allow.shape}; there are {len(catalogue)} candidates"
            )
        return np.flatnonzero(allow)
    positions = catalogue.positions(catalogue.rows(as_list(allow, "allow")))
    return np.unique(positions[positions >= 0])


def excluded_positions(catalogue: Catalogue, state: UserState, exclude: Exclude) -> Indices:
    """Return the places of what is excluded, in any order. Raises DataError for a word other than "history"."""
    if exclude is None:
        return np.zeros(0, np.intp)
    if isinstance(exclude, str):
        if exclude != "history":
            raise DataError(
                f"exclude = {exclude!r:.60}; expected 'history', None or a list of item ids"
            )
        rows = state.seen
    else:
        rows = catalogue.rows(as_list(exclude, "exclude"))
    positions = catalogue.positions(rows)
    return positions[positions >= 0]
