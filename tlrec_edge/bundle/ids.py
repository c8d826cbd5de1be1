"""Ids as callers pass them and as a bundle stores them."""

from __future__ import annotations

import hashlib
from typing import Any, TypeGuard

import numpy as np

from tlrec_edge.errors import ArgumentError

ItemId = str | int


def as_text(value: Any) -> str:
    """Return an id as the bundle stores it; an integer is stored as its decimal digits.

    Raises ArgumentError if ``value`` is neither a string nor an integer.
    """
    if isinstance(value, str):
        return str.__str__(value)  # without what a subclass adds
    if is_integer(value):
        try:
            return str(int(value))
        except ValueError:  # Python limits the digits that it converts
            raise ArgumentError("an id must not be an integer of thousands of digits") from None
    raise ArgumentError(
        f"an id must be a string or an integer, got {type(value).__name__} {preview(value)}"
    )


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer of Python or numpy, and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def encode_id(text: str) -> bytes:
    """Return an id in UTF-8. Lone surrogates are kept: an id with broken characters is an id."""
    return text.encode("utf-8", "surrogatepass")


def user_key_hash(user: str, key: str) -> str:
    """Return the keyed BLAKE2b hash (RFC 7693) that replaces a user id in a bundle.

    ``key`` is the manifest's ``user_key``, in hex.
    """
    return hashlib.blake2b(encode_id(user), key=bytes.fromhex(key), digest_size=16).hexdigest()


def preview(value: Any) -> str:
    """Return the start of a value's repr on one line, for an error message."""
    try:
        return " ".join(f"{value!r:.60}".split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        return f"a {type(value).__name__}"
