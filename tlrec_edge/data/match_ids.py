"""Compare the item ids of the log with those of the item table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from tlrec_edge.errors import DataError

_FEW = 0.5
"""Share of the log's items below which the item table probably has other ids."""
_REWRITES: Mapping[str, Callable[[str], str]] = {
    "without leading zeros": lambda name: name.lstrip("0") or "0",
    "without blanks": lambda name: "".join(name.split()),
    "in lower case": str.casefold,
    'without ".0" at the end': lambda name: name.removesuffix(".0"),
    "without punctuation": lambda name: "".join(filter(str.isalnum, name)),
}


class ItemMatch(NamedTuple):
    """How many items of the log the item table knows.

    Attributes:
        known: items of the log with a row in the item table.
        total: items of the log.
        note: what would make more ids equal, "" if most are.
    """

    known: int
    total: int
    note: str = ""


def match_items(log_items: Sequence[str], listed: Collection[str], items_name: str) -> ItemMatch:
    """Count the items of the log that the item table lists.

    Raises DataError if it lists none of them, although it would after rewriting the ids.
    """
    known = set(listed)
    unknown = [name for name in log_items if name not in known]
    n_known = len(log_items) - len(unknown)
    if n_known >= _FEW * len(log_items) or not unknown:
        return ItemMatch(n_known, len(log_items))
    remedy = _remedy(unknown, known)
    used = set(log_items)
    unsold = next((name for name in listed if name not in used), None)
    example = f"; the table has, for example, {unsold!r:.60}" if unsold is not None else ""
    note = (
        f"{items_name} lists {n_known:,} of the log's {len(log_items):,} items; it lacks, for "
        f"example, {unknown[0]!r:.60}{example}{remedy}"
    )
    if remedy and not n_known:
        raise DataError(note)
    return ItemMatch(n_known, len(log_items), note)


def _remedy(unknown: Sequence[str], known: Collection[str]) -> str:
    """Return the rewriting of both sides that makes most of the unknown ids known, if any."""
    for how, rewrite in _REWRITES.items():
        rewritten = set(map(rewrite, known))
        if sum(rewrite(name) in rewritten for name in unknown) > len(unknown) / 2:
            return f". They would be equal {how}: write the ids alike in both tables"
    return ""
