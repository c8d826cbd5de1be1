"""What is odd about ids: a user should know it, but it may be right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from tlrec_edge.core.counts import counted
from tlrec_edge.tabular.column import Column, are_whole, common
from tlrec_edge.tabular.column_names import MISSING_IDS

_ODD = {
    "looks like a rounded number: several ids may have become one; export the ids as text": (
        re.compile(r"-?\d(\.\d+)?[eE]\+\d+|-?\d{17,}\.0")
    ),
    "has a blank at an end, or an invisible character: it is another id without it": (
        re.compile(r"\s.*|.*\s|.*[\x00-\x1f\u200b-\u200f\u2060\ufeff].*", re.DOTALL)
    ),
    "is a list or an object; expected one id in a cell": (re.compile(r"\[.*\]|\{.*\}", re.DOTALL)),
}
"""What is wrong with ids of some forms."""
_JOINED = re.compile(r"[^,;|]+([,;|][^,;|]+)+|\S*\d\S*( \S*\d\S*)+")
_LINK = re.compile(r"[,;| ]")
_MIN_JOINED = 0.1
"""Share of the ids that must look like several ids for this to be said."""


def id_notes(kind: str, ids: Column, missing: Sequence[str] = ()) -> list[str]:
    """Return what is odd about ids as they are written, one sentence for each kind of oddity."""
    names = [name for name in ids.names if name.strip() and name not in missing]
    notes = [
        f"{kind} {name!r} has {counted(rows, 'row')}; if it is not an id, drop them: "
        f"missing = [{json.dumps(name, ensure_ascii=False)}] under [clean] in a schema"
        for name, rows in common(ids)
        if name not in missing and _means_missing(name)
    ]
    found = {remark: list(filter(form.fullmatch, names)) for remark, form in _ODD.items()}
    found["looks like several ids; expected one id in a cell"] = _joined(names)
    found["is also there without .0: write the ids in one way"] = _also_integers(names)
    for remark, odd in found.items():
        others = f" (and {counted(len(odd) - 1, 'other')})" if len(odd) > 1 else ""
        notes += [f"{kind} {odd[0]!r:.60}{others} {remark}" for _ in odd[:1]]
    return notes


def _means_missing(name: str) -> bool:
    return name.strip().lower() in MISSING_IDS or not any(map(str.isalnum, name))


def _joined(names: Sequence[str]) -> list[str]:
    """Return the ids that look like several, if they are many and their parts recur."""
    joined = [name for name in names if _JOINED.fullmatch(name)]
    if len(joined) < max(1, _MIN_JOINED * len(names)):
        return []
    single = [name for name in names if not _LINK.search(name)]
    parts = Counter(part.strip() for name in joined for part in _LINK.split(name))
    parts.update(single)
    return joined if any(n > 1 for part, n in parts.items() if part) else []


def _also_integers(names: Sequence[str]) -> list[str]:
    """Return the ids stored as floats that occur as integers too, if some ids are other texts."""
    if are_whole(names):  # then all are read as integers
        return []
    known = set(names)
    return [name for name in names if name.endswith(".0") and name[:-2] in known]
