"""What the Recommender's public methods are given, and what they raise over a damaged table."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np

from tlrec_edge.bundle.ids import ItemId, as_text, preview
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import BundleError, DataError
from tlrec_edge.runtime.history import History
from tlrec_edge.search.user_state import UserState

User = History | UserState | str | int | Sequence[ItemId] | ItemRows
"""A history, its state, a plain list of item ids or their rows, or the id of a user whose state the bundle stores."""
USER_ID_TYPES = (str, int, np.integer)


class _Reader(Protocol):
    _bundle: Bundle


_S = TypeVar("_S", bound=_Reader)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def translated(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Turn what numpy raises over a damaged table, which opening does not read through, into BundleError."""

    @functools.wraps(method)
    def call(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except (IndexError, ValueError) as error:
            path = self._bundle.path
            raise BundleError(
                f"a table of {path} is damaged ({preview(str(error))}): `tlrec-edge verify {path}` names the file; "
                "copy or export the bundle again"
            ) from error

    return call


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_features(features: Any) -> None:
    """Raise DataError where these are no item features."""
    if not isinstance(features, Mapping) or not all(
        isinstance(columns, Mapping) for columns in features.values()
    ):
        raise DataError(
            f"features: expected a mapping {{id: {{column: value}}}}, got {preview(features)}"
        )


def check_k(k: Any) -> int:
    """Return ``k`` as an integer that does not overflow. Raises DataError where it is no number of items."""
    if not is_integer(k) or k < 1:
        raise DataError(f"k = {preview(k)}; ask for a whole number of at least 1 item")
    return int(k)


def user_key(user: User) -> Hashable:
    """Return what tells users of one call apart; a stream, which has no length, is refused by TypeError."""
    if isinstance(user, UserState):
        return id(user)
    if isinstance(user, USER_ID_TYPES):
        return as_text(user)
    return user if isinstance(user, (History, ItemRows)) else (len(user), *user)


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of a public method that it uses a name of 0.1."""
    warnings.warn(
        f"{old} was renamed to {new} in 0.2 and will be removed in 0.3",
        DeprecationWarning,
        stacklevel=3,
    )
