"""Which of the user's columns means what: declared in TOML, or found by their common names."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlrec_edge.choices import EVENTS
from tlrec_edge.data.item_map import read_item_map
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import (
    EVENT_SYNONYMS,
    INTERACTION_NAMES,
    ITEM_NAMES,
    normalize_key,
)

FEATURE_KINDS = ("text", "categorical", "numeric", "ignore")
DUPLICATES = ("drop", "keep", "first-pair")
ALIGN_MODES = ("pairs", "name", "id", "vector")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` when a known name is near, else an empty string."""
    by_key = {normalize_key(option): option for option in known}
    found = difflib.get_close_matches(normalize_key(name), by_key, 1, 0.6)
    return f"; did you mean {by_key[found[0]]!r}?" if found else ""


@dataclass(frozen=True)
class AlignRule:
    """Which names of a categorical column are one: those of ``pairs`` (other name to name), and by ``mode`` more.

    ``name``: equal but for case, accents, punctuation and a plural s. ``id``: the same value in the item column ``id``.
    ``vector``: as ``name``, and names of two domains whose words and titles are each other's nearest, their cosine at
    least ``threshold``. A name that is paired with itself is left alone.

    The threshold trades what is found for little else: of 304 categories of Complete Journey, renamed in half the items
    with half the words of their product types, 0.5 finds 36 % and 0.3 finds 77 %, 99 of 100 merges right at both. Where
    domains are departments and nothing is the same, 0.5 still merges 9 near ones: look at the list.
    """

    mode: str = "pairs"
    pairs: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        _check_value(self.mode, ALIGN_MODES, "mode")
        if self.mode == "pairs" and not self.pairs:
            raise DataError(
                'nothing says which names are one: set mode = "name", "id" or "vector", or give pairs'
            )
        if (self.mode == "id") != bool(self.id):
            raise DataError('mode = "id" and id = "column of the item table" go together')
        if not 0 < self.threshold <= 1:
            raise DataError(
                f"threshold is {self.threshold}, expected a cosine above 0 and at most 1"
            )


@dataclass(frozen=True)
class Schema:
    """Roles of columns and rules of cleaning; what is not declared is found by its common name.

    ``interactions`` and ``items`` map a role to a column name ("" = this data has no such column even if a name looks
    like it). ``domains`` renames values of the domain column, ``"*"`` stands for all others. ``cancelled`` is (column,
    prefix): rows whose value starts with the prefix. ``duplicates``: exact copies of a row are dropped or kept, or only
    the first interaction of each (user, item) is kept. ``max_per_user`` keeps a user's newest interactions (0: all).

    ``scale`` maps a numeric column and a domain to the factor that brings its numbers to the common unit; with
    ``by_domain`` numbers are ranked within their domain. ``align`` says by column which names are one, ``item_map``
    which item ids are (other id to the id that stays).
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
    max_per_user: int = 0
    scale: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_domain: bool = False
    align: Mapping[str, AlignRule] = field(default_factory=dict)
    item_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_keys(self.interactions, INTERACTION_NAMES, "[interactions]")
        _check_keys(self.items, ITEM_NAMES, "[items]")
        _check_value(self.duplicates, DUPLICATES, "duplicates")
        _check_value(self.default_event, EVENTS, "default_event")
        for value, event in self.events.items():
            _check_value(event, EVENTS, f"[events] {value!r}")
        for column, kind in self.features.items():
            _check_value(kind, FEATURE_KINDS, f"feature {column!r}")
        if self.max_per_user < 0:
            raise DataError(
                f"max_per_user is {self.max_per_user}, expected 1 or more (0: no limit)"
            )
        for column, factors in self.scale.items():
            for domain, factor in factors.items():
                if (
                    isinstance(factor, bool)
                    or not isinstance(factor, int | float)
                    or not 0 < factor < math.inf
                ):
                    raise DataError(
                        f"[scale.{column}] {domain} is {factor!r}, expected a number above 0"
                    )
        for column, rule in self.align.items():
            _check_no_chains(rule.pairs, f"[align.{column}] pairs")
        _check_no_chains(self.item_map, "item_map")

    def domain_of(self, value: str) -> str:
        """Return the domain that a value of the domain column stands for."""
        return self.domains.get(value, self.domains.get("*", value))

    def event_of(self, value: str) -> str | None:
        """Return the event that a value of the event column stands for; None when it is not recognised."""
        return self.events.get(value) or EVENT_SYNONYMS.get(normalize_key(value))


def load_schema(path: Path) -> Schema:
    """Read a schema from TOML. Raises DataError that names the file and the wrong key."""
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"cannot read schema {path}: {error}; expected a TOML file in UTF-8"
        ) from error
    try:
        return parse_schema(raw, path.parent)
    except DataError as error:
        raise DataError(f"schema {path}: {error}") from error


def parse_schema(raw: Mapping[str, Any], folder: Path = Path()) -> Schema:
    """Build a schema from the tables of a TOML file; files it names are looked up in ``folder``."""
    known = ("interactions", "items", "domains", "events", "clean", "scale", "align")
    _check_keys(raw, known, "top level")
    for name, table in raw.items():
        if not isinstance(table, Mapping):
            raise DataError(f"{name!r} must be a table: write [{name}] on a line of its own")
    items = dict(raw.get("items", {}))
    features = {
        column: kind for kind in FEATURE_KINDS for column in _names(items.pop(kind, []), kind)
    }
    clean = dict(raw.get("clean", {}))
    _check_keys(clean, (*_CLEAN_TYPES, "cancelled", "drop_domains"), "[clean]")
    if "cancelled" in clean:
        clean["cancelled"] = _cancelled(clean["cancelled"])
    if "drop_domains" in clean:
        clean["drop_domains"] = tuple(_names(clean["drop_domains"], "drop_domains"))
    _check_types(clean, _CLEAN_TYPES)
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
        **_parse_scale(raw.get("scale", {})),
        **_parse_align(raw.get("align", {}), folder),
    )


_CLEAN_TYPES = {
    "positive_price": bool,
    "time_format": str,
    "duplicates": str,
    "default_event": str,
    "max_per_user": int,
}


def _parse_scale(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Split ``by_domain`` from the tables of factors."""
    tables = {column: table for column, table in raw.items() if column != "by_domain"}
    _check_types(raw, {"by_domain": bool})
    for column, table in tables.items():
        if not isinstance(table, Mapping):
            raise DataError(
                f"[scale] {column} is {table!r}, expected a table: [scale.{column}] and domain = factor"
            )
    return {"scale": tables, "by_domain": raw.get("by_domain", False)}


def _parse_align(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Split ``item_map`` from the rules by column, and read its file."""
    item_map = raw.get("item_map", {})
    if isinstance(item_map, str):
        item_map = read_item_map(folder / item_map)
    elif not isinstance(item_map, Mapping):
        raise DataError(f'item_map is {item_map!r}, expected a file: item_map = "map.csv"')
    rules = {}
    for column, table in raw.items():
        if column == "item_map":
            continue
        where = f"[align.{column}]"
        if not isinstance(table, Mapping):
            raise DataError(
                f'[align] {column} is {table!r}, expected a table: {where} and mode = "name"'
            )
        _check_keys(table, AlignRule.__dataclass_fields__, where)
        _check_types(table, {"mode": str, "id": str, "threshold": float, "pairs": Mapping})
        _check_types(table.get("pairs", {}), dict.fromkeys(table.get("pairs", {}), str))
        try:
            rules[column] = AlignRule(**table)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    return {"align": rules, "item_map": item_map}


def find_roles(
    columns: Sequence[str],
    declared: Mapping[str, str],
    names: Mapping[str, tuple[str, ...]],
    table: str,
) -> dict[str, str]:
    """Map roles to the columns of one table. Raises DataError for a declared column that is not there."""
    roles: dict[str, str] = {}
    for role, column in declared.items():
        if column and column not in columns:
            raise DataError(
                f"{table}: no column {column!r} for {role}; found {', '.join(columns)}{suggestion(column, columns)}"
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


def require_role(roles: Mapping[str, str], role: str, columns: Sequence[str], table: str) -> None:
    """Raise DataError when a role has no column; the message lists the columns and the nearest name."""
    if role in roles:
        return
    known = (*INTERACTION_NAMES[role], f"{role}_id")
    hints = [(column, hint) for column in columns if (hint := suggestion(column, known))]
    near = f"; is {hints[0][0]!r} the {role}?" if hints else ""
    raise DataError(
        f'{table}: no {role} column; found {", ".join(columns)}{near}; name it in a schema: {role} = "column"'
    )


def _check_keys(values: Iterable[str], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in values:
        if key not in known:
            raise DataError(
                f"unknown key {key!r} in {where}{suggestion(key, known) or '; known: ' + ', '.join(known)}"
            )


def _check_value(value: object, known: Sequence[str], where: str) -> None:
    if value not in known:
        raise DataError(f"{where} is {value!r}, expected one of {', '.join(known)}")


_TYPE_NAMES: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point",
    Mapping: "a table",
}


def _check_types(values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for key, expected in types.items():
        if key in values and (
            not isinstance(values[key], expected)
            or isinstance(values[key], bool) > (expected is bool)
        ):
            raise DataError(f"{key!r} is {values[key]!r}, expected {_TYPE_NAMES[expected]}")


def _check_no_chains(pairs: Mapping[str, str], where: str) -> None:
    """Raise DataError where a name that stays is itself sent on: which name counts would depend on the order."""
    for one, other in pairs.items():
        if one != other and pairs.get(other, other) != other:
            raise DataError(
                f"{where}: {one!r} goes to {other!r}, which goes on to {pairs[other]!r}; name the last one"
            )


def _names(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f'{key!r} is {value!r}, expected a list of names: {key} = ["a", "b"]')
    return value


def _cancelled(value: Any) -> tuple[str, str]:
    if not isinstance(value, Mapping) or set(value) != {"column", "prefix"}:
        raise DataError(
            f'cancelled is {value!r}, expected {{ column = "InvoiceNo", prefix = "C" }}'
        )
    return str(value["column"]), str(value["prefix"])
