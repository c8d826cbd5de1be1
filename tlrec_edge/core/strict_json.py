"""Parse JSON that another program may have written: strictly, and with the errors of one kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tlrec_edge.core.unicode import check_text

MAX_DEPTH = 100
"""Levels of lists and objects in each other that are accepted. Deeper ones exhaust the stack."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises ValueError if it is not valid JSON, if an object has the same key twice, of which readers
    would choose different values, if it is nested too deeply, or if a text has a lone surrogate.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(value)
    check_texts(value, text)
    return value


def check_texts(value: Any, json_text: str) -> None:
    """Raise ValueError if a key or a text of a parsed JSON text has a lone surrogate."""
    if _SURROGATE_ESCAPE.search(json_text):  # JSON can write it in no other way
        for text in _texts(value):
            check_text(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises ValueError if a key occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.80} occurs twice")
    return found


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise _too_deep()


def _children(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in values if isinstance(child, (dict, list))]


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested more than {MAX_DEPTH} deep")
