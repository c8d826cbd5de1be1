"""Find the columns of a table by their roles: user, item, timestamp and so on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import UNNAMED
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, normalize_key

_VALUE = re.compile(r"-?\d[\d.,:/ T+-]*Z?")
_WORDS = re.compile(r"\w+([^\w.@-]\w+)+")
_CLOSE = 0.75
"""Similarity from which a column may be a misspelt role; at 0.6, 'aktion' is close to 'asin'."""


def suggestion(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``"; did you mean 'x'?"`` if a known name is similar, else an empty string."""
    by_key = {normalize_key(option): option for option in known}
    found = difflib.get_close_matches(normalize_key(name), by_key, 1, cutoff)
    return f"; did you mean {by_key[found[0]]!r}?" if found else ""


def found_columns(name: str, columns: Iterable[str]) -> str:
    """Return ``"found a, b"``, the columns of the user, and the one that ``name`` may mean."""
    named = [column for column in columns if not column.startswith(UNNAMED)]
    return f"found {', '.join(named) or 'none'}{suggestion(name, named)}"


def find_roles(
    columns: Sequence[str],
    declared: Mapping[str, str],
    names: Mapping[str, tuple[str, ...]],
    table_name: str,
    strict: bool = True,
) -> dict[str, str]:
    """Map roles to the columns of one table: declared ones, then those found by common names.

    Raises DataError if the table lacks a declared column; unless ``strict``, the role is then
    found by common names.
    """
    roles: dict[str, str] = {}
    if not strict:
        declared = {role: name for role, name in declared.items() if not name or name in columns}
    for role, column in declared.items():
        if column and column not in columns:
            raise DataError(
                f"{table_name}: no column {column!r} for {role}; {found_columns(column, columns)}"
            )
        if column:
            roles[role] = column
    taken = set(roles.values())
    by_key = {normalize_key(column): column for column in reversed(columns) if column not in taken}
    for role, known in names.items():
        found = next((by_key[name] for name in known if name in by_key), None)
        if role not in declared and found is not None and found not in roles.values():
            roles[role] = found
    return roles


def require_role(
    roles: Mapping[str, str],
    role: str,
    columns: Sequence[str],
    table_name: str,
    section: str | None,
    is_frame: bool = False,
) -> None:
    """Raise DataError if a role has no column; the message lists the columns.

    ``section`` is the table's section in a schema, None if schemas do not describe the table.
    ``is_frame`` says that the table is in memory.
    """
    if role in roles:
        return
    known = (*INTERACTION_NAMES[role], f"{role}_id")
    check_header(columns, table_name, is_frame)
    if len(columns) == 1 and _WORDS.fullmatch(columns[0]):
        raise DataError(
            f"{table_name}: no {role} column; the only column is {columns[0]!r:.80}: if it is "
            "several, name what separates them: separator under [files] in a schema"
        )
    close = [column for column in columns if suggestion(column, known, _CLOSE)]
    question = f"; is {close[0]!r} the {role}?" if close else ""
    remedy = f"rename the column to {role!r}"
    if is_frame:
        remedy += f', or pass schema={{"{section}": {{"{role}": "column"}}}}'
    elif section is not None:
        remedy = f'name it in a file for --schema: [{section}] {role} = "column"'
    raise DataError(
        f"{table_name}: no {role} column; found {', '.join(columns)}{question}; {remedy}"
    )


def check_header(columns: Sequence[str], table_name: str, is_frame: bool = False) -> None:
    """Raise DataError if some cell of a header line, or name of a frame, is a number or a date."""
    if not any(map(_VALUE.fullmatch, columns)):
        return
    if is_frame:
        raise DataError(
            f"{table_name}: the columns are called {', '.join(columns)[:80]}; give them names such "
            "as user, item and time"
        )
    raise DataError(
        f"{table_name}: no header line? Its first line is {', '.join(columns)[:80]}; add one, "
        "or name the columns of an interaction table by position: "
        'columns = ["user", "item", "time"] under [files] in a file for --schema'
    )
