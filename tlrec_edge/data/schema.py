"""Which of the user's columns means what: declared in TOML, or found by their common names."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlrec_edge.data.dataset import EVENTS
from tlrec_edge.data.names import EVENT_SYNONYMS, INTERACTION_NAMES, ITEM_NAMES, plain
from tlrec_edge.errors import DataError

FEATURE_KINDS = ("text", "categorical", "numeric", "ignore")
DUPLICATES = ("drop", "keep", "first-pair")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` when a known name is near, else an empty string."""
    by_plain = {plain(candidate): candidate for candidate in known}
    found = difflib.get_close_matches(plain(name), by_plain, 1, 0.6)
    return f"; did you mean {by_plain[found[0]]!r}?" if found else ""


@dataclass(frozen=True)
class Schema:
    """Roles of columns and rules of cleaning; what is not declared is found by its common name.

    ``interactions`` and ``items`` map a role to a column name ("" = this data has no such column even if a name looks
    like it). ``domains`` renames values of the domain column, ``"*"`` stands for all others. ``cancelled`` is (column,
    prefix): rows whose value starts with the prefix. ``duplicates``: exact copies of a row are dropped or kept, or only
    the first interaction of each (user, item) is kept.
    """

    interactions: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, str] = field(default_factory=dict)
    duplicates: str = "drop"
    default_event: str = "purchase"
    positive_price: bool = False
    time_format: str = ""
    cancelled: tuple[str, str] | None = None
    drop_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_keys(self.interactions, INTERACTION_NAMES, "[interactions]")
        _check_keys(self.items, ITEM_NAMES, "[items]")
        _check_value(self.duplicates, DUPLICATES, "duplicates")
        _check_value(self.default_event, EVENTS, "default_event")
        for value, event in self.events.items():
            _check_value(event, EVENTS, f"[events] {value!r}")
        for column, kind in self.features.items():
            _check_value(kind, FEATURE_KINDS, f"feature {column!r}")

    def domain_of(self, value: str) -> str:
        """Return the domain that a value of the domain column stands for."""
        return self.domains.get(value, self.domains.get("*", value))

    def event_of(self, value: str) -> str | None:
        """Return the event that a value of the event column stands for; None when it is not recognised."""
        return self.events.get(value) or EVENT_SYNONYMS.get(plain(value))


def load_schema(path: Path) -> Schema:
    """Read a schema from TOML. Raises DataError that names the file and the wrong key."""
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read schema {path}: {error}; expected a TOML file in UTF-8") from error
    try:
        return parse_schema(raw)
    except DataError as error:
        raise DataError(f"schema {path}: {error}") from error


def parse_schema(raw: Mapping[str, Any]) -> Schema:
    """Build a schema from the tables of a TOML file."""
    known = ("interactions", "items", "domains", "events", "clean")
    _check_keys(raw, known, "top level")
    for name, table in raw.items():
        if not isinstance(table, Mapping):
            raise DataError(f"{name!r} must be a table: write [{name}] on a line of its own")
    items = dict(raw.get("items", {}))
    features = {column: kind for kind in FEATURE_KINDS for column in _names(items.pop(kind, []), kind)}
    clean = dict(raw.get("clean", {}))
    _check_keys(
        clean, ("duplicates", "default_event", "positive_price", "time_format", "cancelled", "drop_domains"), "[clean]"
    )
    if "cancelled" in clean:
        clean["cancelled"] = _cancelled(clean["cancelled"])
    if "drop_domains" in clean:
        clean["drop_domains"] = tuple(_names(clean["drop_domains"], "drop_domains"))
    _check_types(clean, {"positive_price": bool, "time_format": str, "duplicates": str, "default_event": str})
    for name in ("interactions", "domains", "events"):
        _check_types(raw.get(name, {}), dict.fromkeys(raw.get(name, {}), str))
    _check_types(items, dict.fromkeys(items, str))
    return Schema(
        interactions=raw.get("interactions", {}),
        items=items,
        features=features,
        domains=raw.get("domains", {}),
        events=raw.get("events", {}),
        **clean,
    )


def find_roles(
    columns: Sequence[str], declared: Mapping[str, str], names: Mapping[str, tuple[str, ...]], table: str
) -> dict[str, str]:
    """Map roles to the columns of one table. Raises DataError for a declared column that is not there."""
    roles: dict[str, str] = {}
    for role, column in declared.items():
        if column and column not in columns:
            raise DataError(
                f"{table}: no column {column!r} for {role}; found {', '.join(columns)}{nearest(column, columns)}"
            )
        if column:
            roles[role] = column
    taken = set(roles.values())
    by_plain = {plain(column): column for column in reversed(columns) if column not in taken}
    for role, known in names.items():
        found = next((by_plain[name] for name in known if name in by_plain), None)
        if role not in declared and found is not None and found not in roles.values():
            roles[role] = found
    return roles


def need_role(roles: Mapping[str, str], role: str, columns: Sequence[str], table: str) -> None:
    """Raise DataError when a role has no column; the message lists the columns and the nearest name."""
    if role in roles:
        return
    known = (*INTERACTION_NAMES[role], f"{role}_id")
    hints = [(column, hint) for column in columns if (hint := nearest(column, known))]
    near = f"; is {hints[0][0]!r} the {role}?" if hints else ""
    raise DataError(
        f'{table}: no {role} column; found {", ".join(columns)}{near}; name it in a schema: {role} = "column"'
    )


def _check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in given:
        if key not in known:
            raise DataError(f"unknown key {key!r} in {where}{nearest(key, known) or '; known: ' + ', '.join(known)}")


def _check_value(value: object, known: Sequence[str], where: str) -> None:
    if value not in known:
        raise DataError(f"{where} is {value!r}, expected one of {', '.join(known)}")


def _check_types(given: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for key, expected in types.items():
        if key in given and not isinstance(given[key], expected):
            raise DataError(f"{key!r} is {given[key]!r}, expected {'text' if expected is str else 'true or false'}")


def _names(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f'{key!r} is {value!r}, expected a list of names: {key} = ["a", "b"]')
    return value


def _cancelled(value: Any) -> tuple[str, str]:
    if not isinstance(value, Mapping) or set(value) != {"column", "prefix"}:
        raise DataError(f'cancelled is {value!r}, expected {{ column = "InvoiceNo", prefix = "C" }}')
    return str(value["column"]), str(value["prefix"])
