"""Ids as callers pass them and as a bundle stores them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from tlrec_edge.errors import ArgumentError, DataError

ItemId = str | int
_USER_KEY = re.compile(r"(?:[0-9a-fA-F]{2}){16,64}")
_MAX_KEY_TEXT = 1000


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
    """Return whether a value is a Python or numpy integer, and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def encode_id(text: str) -> bytes:
    """Return an id in UTF-8. One with lone surrogates is accepted, but no bundle has it."""
    return text.encode("utf-8", "surrogatepass")


def user_key_hash(user: str, key: str) -> str:
    """Return the keyed BLAKE2b hash (RFC 7693) that replaces a user id in a bundle.

    ``key`` is in hex: the manifest's ``user_key``, or one that is kept outside the bundle.
    """
    return hashlib.blake2b(encode_id(user), key=bytes.fromhex(key), digest_size=16).hexdigest()


def user_key_check(key: str) -> str:
    """Return the hash in the manifest by which a key outside the bundle is recognised."""
    return user_key_hash("", key)  # no user has an empty id


def is_user_key(key: Any) -> bool:
    """Return whether a value is a key of 16 to 64 bytes in hex."""
    return isinstance(key, str) and _USER_KEY.fullmatch(key) is not None


def read_user_key(path: Path) -> str:
    """Return the key in a file, in hex. Raises DataError if it cannot be read or isn't a key."""
    try:
        key = path.read_text("ascii", "replace")[:_MAX_KEY_TEXT].strip()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if not is_user_key(key):
        raise DataError(
            f"{path} is not a key: it must hold 32 to 128 hexadecimal digits; "
            "make one with `openssl rand -hex 32`"
        )
    return key


def preview(value: Any) -> str:
    """Return the start of a value's repr on one line, for an error message."""
    try:
        return " ".join(f"{value!r:.60}".split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        return f"a {type(value).__name__}"
