"""Checks of the arguments of the Recommender's public methods."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tlrec_edge.bundle.ids import ItemId, as_text, is_integer, is_user_key, preview
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.errors import ArgumentError
from tlrec_edge.runtime.history import History
from tlrec_edge.search.user_state import UserState

User = History | UserState | str | int | Sequence[ItemId] | ItemRows
"""A history, its state, a list of item ids or their rows, or the id of a user in the bundle."""
USER_ID_TYPES = (str, int, np.integer)
UNKNOWN_POLICIES = ("popularity", "error", "nan")


def check_options(threads: Any, unknown: Any, cache: Any) -> None:
    """Raise ArgumentError unless ``Recommender.open`` accepts these."""
    if unknown not in UNKNOWN_POLICIES:
        raise ArgumentError(
            f"unknown = {preview(unknown)}, expected one of {', '.join(UNKNOWN_POLICIES)}"
        )
    for name, value, least in (("threads", threads, 1), ("cache", cache, 0)):
        if not is_integer(value) or value < least:
            raise ArgumentError(f"{name} = {preview(value)}, expected an integer from {least} on")


def check_user_key(user_key: Any) -> None:
    """Raise ArgumentError unless this is a key or None; the message does not show it."""
    if user_key is not None and not is_user_key(user_key):
        raise ArgumentError(
            f"user_key: expected 32 to 128 hexadecimal digits, got {type(user_key).__name__} "
            "of another form"
        )


def check_features(features: Any) -> None:
    """Raise ArgumentError unless these are columns for each item."""
    if not isinstance(features, Mapping) or not all(
        isinstance(columns, Mapping) for columns in features.values()
    ):
        raise ArgumentError(
            f"features: expected a mapping {{id: {{column: value}}}}, got {preview(features)}"
        )


def check_k(k: Any) -> int:
    """Return ``k`` as a Python integer, which does not overflow. Raises ArgumentError."""
    if not is_integer(k) or k < 1:
        raise ArgumentError(f"k = {preview(k)}, expected an integer from 1 on")
    return int(k)


def equality_key(user: User) -> Hashable:
    """Return a key that is equal for equal users. Raises TypeError for an iterator."""
    if isinstance(user, UserState):
        return id(user)
    if isinstance(user, USER_ID_TYPES):
        return as_text(user)
    if isinstance(user, (History, ItemRows)):
        return user
    # With the types: True and 1.0 equal the integer 1, but are not ids.
    return (len(user), *map(type, user), *user)


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of a public method that it uses a name of 0.1."""
    message = f"{old} was renamed to {new} in 0.2 and will be removed in 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
