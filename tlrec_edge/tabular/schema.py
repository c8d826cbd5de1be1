"""The schema: roles of the user's columns, declared in TOML or found by their common names."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tlrec_edge.choices import EVENTS
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import FileOptions
from tlrec_edge.tabular.column_names import (
    EVENT_SYNONYMS,
    INTERACTION_NAMES,
    ITEM_NAMES,
    normalize_key,
)
from tlrec_edge.tabular.item_map import read_item_map
from tlrec_edge.tabular.roles import suggestion

_TOML_LINE = re.compile(r"\(at line (\d+)")
FEATURE_KINDS = ("text", "categorical", "numeric", "ignore")
DUPLICATES = ("drop", "keep", "first-pair")
ALIGN_MODES = ("pairs", "name", "id", "vector")


@dataclass(frozen=True)
class AlignRule:
    """How different names of one category are merged.

    In mode ``vector`` a lower threshold merges more names. In a test on Complete Journey, half of
    the items got other names for their 304 categories, made of half of the words: a threshold of
    0.5 found 36 % of the categories again, and 0.3 found 77 %. At both, 99 of 100 merges were
    right. But between departments, which share no category, a threshold of 0.5 still merged 9
    similar names: check the list that ``prepare`` prints.

    Args:
        mode: ``pairs`` merges only the pairs. ``name`` also merges names that are equal except for
            case, accents, punctuation and a plural s. ``id`` merges names whose items have the same
            value in the column ``id``. ``vector`` merges as ``name`` does, and also two names of
            different domains if each is the other's nearest neighbour, by the words of the name
            and of its items.
        pairs: other name to the name that stays. A name paired with itself is never merged.
        id: item column of mode ``id``.
        threshold: smallest cosine of mode ``vector``.

    Raises:
        DataError: if a value is not valid, or the values do not fit together.
    """

    mode: str = "pairs"
    pairs: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        _check_value(self.mode, ALIGN_MODES, "mode")
        if self.mode == "pairs" and not self.pairs:
            raise DataError('no names to merge: set mode = "name", "id" or "vector", or give pairs')
        if (self.mode == "id") != bool(self.id):
            raise DataError('mode = "id" and id = "column of the item table" go together')
        if not 0 < self.threshold <= 1:
            raise DataError(
                f"threshold is {self.threshold}, expected a cosine above 0 and at most 1"
            )


@dataclass(frozen=True)
class Schema:
    """Roles of columns and cleaning rules. Undeclared columns are recognised by common names.

    Args:
        interactions: role to column of the interaction tables; "" if no column has the role, even
            if the name of one suggests it.
        items: role to column of the item tables.
        features: item column to its kind: text, categorical, numeric or ignore.
        lists: item column with several categories in a cell to the text between them, such as "|".
        domains: value of the domain column to the name of the domain; ``"*"`` is all other values.
        events: value of the event column to one of ``EVENTS``.
        duplicates: ``drop`` or ``keep`` exact copies of a row, or keep only the first interaction
            of each (user, item) with ``first-pair``.
        default_event: the event of rows without one.
        positive_price: drop rows whose price is not above 0.
        missing: words that mean that an id is missing, such as "NULL".
        time_format: ``strptime`` format of the times; by default common formats are recognised.
        cancelled: (column, prefix): drop rows whose value starts with the prefix.
        drop_domains: domains that are left out.
        max_per_user: keep each user's newest interactions; 0 keeps all.
        scale: numeric column to domain to the factor into the common unit.
        by_domain: rank numbers within the item's domain.
        align: categorical column to the rule that merges its names.
        item_map: other item id to the id that stays, for items with two ids.
        files: encoding, separator and columns of text files, if they must be named.
        decimal: "," or "." if numbers have that decimal mark; "" lets each column show it.

    Raises:
        DataError: if a key or a value is not valid.
    """

    interactions: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, str] = field(default_factory=dict)
    duplicates: str = "drop"
    default_event: str = "purchase"
    positive_price: bool = False
    missing: tuple[str, ...] = ()
    time_format: str = ""
    cancelled: tuple[str, str] | None = None
    drop_domains: tuple[str, ...] = ()
    max_per_user: int = 0
    scale: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_domain: bool = False
    align: Mapping[str, AlignRule] = field(default_factory=dict)
    item_map: Mapping[str, str] = field(default_factory=dict)
    files: FileOptions = field(default_factory=FileOptions)
    decimal: str = ""

    def __post_init__(self) -> None:
        _check_keys(self.interactions, INTERACTION_NAMES, "[interactions]")
        _check_keys(self.items, ITEM_NAMES, "[items]")
        _check_value(self.duplicates, DUPLICATES, "duplicates")
        _check_value(self.default_event, EVENTS, "default_event")
        _check_value(self.decimal, ("", ",", "."), "decimal")
        for value, event in self.events.items():
            _check_value(event, EVENTS, f"[events] {value!r}")
        for column, kind in self.features.items():
            _check_value(kind, FEATURE_KINDS, f"feature {column!r}")
        for column in self.lists:
            self._check_list(column)
        if self.max_per_user < 0:
            raise DataError(
                f"max_per_user is {self.max_per_user}, expected 1 or more, or 0 for no limit"
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

    def _check_list(self, column: str) -> None:
        """Raise DataError if the column of a list is declared as something else too."""
        others = [role for role, name in self.items.items() if name == column]
        others += [kind for name, kind in self.features.items() if name == column != kind != "text"]
        if others:
            raise DataError(
                f"[items] {column!r} is declared as {others[0]} and as a list: a list has several "
                "categories in a cell; remove one of the two"
            )

    def domain_of(self, value: str) -> str:
        """Return the name of the domain for a value of the domain column."""
        return self.domains.get(value, self.domains.get("*", value))

    def event_of(self, value: str) -> str | None:
        """Return the event for a value of the event column, None if it is not recognised."""
        return self.events.get(value) or EVENT_SYNONYMS.get(normalize_key(value))

    def to_json(self) -> dict[str, Any]:
        """Return the tables of a TOML file that ``parse_schema`` reads as this schema."""
        items: dict[str, Any] = dict(self.items)
        for kind in FEATURE_KINDS:
            if columns := [name for name, declared in self.features.items() if declared == kind]:
                items[kind] = columns
        if self.lists:
            items["list"] = dict(self.lists)
        clean: dict[str, Any] = {name: getattr(self, name) for name in _CLEAN_TYPES}
        clean |= {"missing": list(self.missing), "drop_domains": list(self.drop_domains)}
        if self.cancelled:
            clean["cancelled"] = dict(zip(("column", "prefix"), self.cancelled, strict=True))
        align: dict[str, Any] = {column: asdict(rule) for column, rule in self.align.items()}
        if self.item_map:
            align["item_map"] = dict(self.item_map)
        files = {**asdict(self.files), "columns": list(self.files.columns)}
        return {
            "files": {**files, "decimal": self.decimal},
            "interactions": dict(self.interactions),
            "items": items,
            "domains": dict(self.domains),
            "events": dict(self.events),
            "clean": clean,
            "scale": {**self.scale, "by_domain": self.by_domain},
            "align": align,
        }


def load_schema(path: str | os.PathLike[str]) -> Schema:
    """Read a schema from TOML. Raises DataError if it is not valid; the message names the key."""
    path, text = Path(path), ""
    try:
        text = path.read_text("utf-8-sig")
        raw = tomllib.loads(text)
    except OSError as error:
        raise DataError(f"cannot read schema {path}: {error.strerror}") from error
    except RecursionError as error:
        raise DataError(f"cannot read schema {path}: it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read schema {path}: {error}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"cannot read schema {path}: {_toml_fault(error, text)}") from error
    try:
        return parse_schema(raw, path.parent)
    except DataError as error:
        raise DataError(f"schema {path}: {error}") from error


def _toml_fault(error: tomllib.TOMLDecodeError, text: str) -> str:
    """Return what is wrong with a TOML file, with the line at fault."""
    found, lines = _TOML_LINE.search(str(error)), text.splitlines()
    line = lines[int(found[1]) - 1].strip() if found and int(found[1]) <= len(lines) else ""
    shown = f": {line!r:.80}" if line else ""
    return (
        f"{error}{shown}; texts need quotes, and so do names with blanks, dots or letters such as "
        'é: "unit price" = 1'
    )


def schema_of(value: Schema | Mapping[str, Any] | None) -> Schema:
    """Return a schema, parse one from the tables of a TOML file, or return the default for None.

    Raises DataError if it is neither, or if a key or a value is not valid.
    """
    if value is None or isinstance(value, Schema):
        return value or Schema()
    if not isinstance(value, Mapping):
        raise DataError(
            f"schema is {value!r:.80}, expected a Schema or its tables: "
            '{"interactions": {"user": "column"}}'
        )
    return parse_schema(value)


def parse_schema(raw: Mapping[str, Any], folder: Path = Path()) -> Schema:
    """Build a schema from the tables of a TOML file; the item map is a file in ``folder``.

    Raises DataError if a key or a value is not valid.
    """
    _check_key_types(raw, "top level")
    known = ("files", "interactions", "items", "domains", "events", "clean", "scale", "align")
    _check_keys(raw, known, "top level")
    for name, table in raw.items():
        if not isinstance(table, Mapping):
            raise DataError(f"{name!r} must be a table: write [{name}] on a line of its own")
    items = dict(raw.get("items", {}))
    _check_keys(items, (*ITEM_NAMES, *FEATURE_KINDS, "list"), "[items]")
    lists = _parse_lists(items.pop("list", {}))
    features = {
        column: kind for kind in FEATURE_KINDS for column in _names(items.pop(kind, []), kind)
    }
    clean = dict(raw.get("clean", {}))
    _check_keys(clean, (*_CLEAN_TYPES, "cancelled", "missing", "drop_domains"), "[clean]")
    if "cancelled" in clean:
        clean["cancelled"] = _cancelled(clean["cancelled"])
    for name in ("missing", "drop_domains"):
        if name in clean:
            clean[name] = tuple(_names(clean[name], name))
    _check_types(clean, _CLEAN_TYPES)
    for name in ("interactions", "domains", "events"):
        _check_types(raw.get(name, {}), dict.fromkeys(raw.get(name, {}), str))
    _check_types(items, dict.fromkeys(items, str))
    return Schema(
        interactions=raw.get("interactions", {}),
        items=items,
        features=features,
        lists=lists,
        domains=raw.get("domains", {}),
        events=raw.get("events", {}),
        **clean,
        **_parse_files(raw.get("files", {})),
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


def _parse_files(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Separate ``decimal``, which is about numbers, from the options of files."""
    _check_keys(raw, ("encoding", "separator", "columns", "decimal"), "[files]")
    _check_types(raw, dict.fromkeys(("encoding", "separator", "decimal"), str))
    columns = tuple(_names(raw.get("columns", []), "columns"))
    options = FileOptions(raw.get("encoding", ""), raw.get("separator", ""), columns)
    return {"files": options, "decimal": raw.get("decimal", "")}


def _parse_lists(raw: Any) -> dict[str, str]:
    if not isinstance(raw, Mapping):
        raise DataError(f'[items] list is {raw!r}, expected a table: list = {{ genres = "|" }}')
    _check_types(raw, dict.fromkeys(raw, str))
    for column, separator in raw.items():
        if not separator:
            raise DataError(f"[items] list: the separator of {column!r} is empty")
    return dict(raw)


def _parse_scale(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Separate ``by_domain`` from the tables of factors."""
    tables = {column: table for column, table in raw.items() if column != "by_domain"}
    _check_types(raw, {"by_domain": bool})
    for column, table in tables.items():
        if not isinstance(table, Mapping):
            raise DataError(
                f"[scale] {column} is {table!r}, expected a table: "
                f"[scale.{column}] and domain = factor"
            )
    return {"scale": tables, "by_domain": raw.get("by_domain", False)}


def _parse_align(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Separate ``item_map`` from the rules by column, and read its file."""
    item_map = raw.get("item_map", {})
    if isinstance(item_map, str):
        item_map = read_item_map(folder / item_map)
    elif not isinstance(item_map, Mapping):
        raise DataError(f'item_map is {item_map!r}, expected a file: item_map = "map.csv"')
    rules = {}
    for column, table in raw.items():
        if column == "item_map":
            continue
        title = f"[align.{column}]"
        if not isinstance(table, Mapping):
            raise DataError(
                f'[align] {column} is {table!r}, expected a table: {title} and mode = "name"'
            )
        _check_keys(table, AlignRule.__dataclass_fields__, title)
        _check_types(table, {"mode": str, "id": str, "threshold": float, "pairs": Mapping})
        _check_types(table.get("pairs", {}), dict.fromkeys(table.get("pairs", {}), str))
        try:
            rules[column] = AlignRule(**table)
        except DataError as error:
            raise DataError(f"{title}: {error}") from error
    return {"align": rules, "item_map": item_map}


def _check_key_types(table: Mapping[Any, Any], title: str) -> None:
    """Raise DataError if a key is not a text; those of a TOML file are, those of a dict may not."""
    for key, value in table.items():
        if not isinstance(key, str):
            raise DataError(f"the key {key!r} in {title} is not a text")
        if isinstance(value, Mapping):
            _check_key_types(value, f"[{key}]")


def _check_keys(keys: Iterable[str], known: Iterable[str], title: str) -> None:
    known = tuple(known)
    for key in keys:
        if key not in known:
            hint = suggestion(key, known) or f"; known: {', '.join(known)}"
            raise DataError(f"unknown key {key!r} in {title}{hint}")


def _check_value(value: object, known: Sequence[str], key: str) -> None:
    if value not in known:
        raise DataError(f"{key} is {value!r}, expected one of {', '.join(known)}")


_TYPE_NAMES: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number with a decimal point",
    Mapping: "a table",
}


def _check_types(values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for key, expected in types.items():
        if key not in values:
            continue
        value = values[key]
        # True and False are integers in Python, but not in a schema.
        is_valid = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
        if not is_valid:
            raise DataError(f"{key!r} is {value!r}, expected {_TYPE_NAMES[expected]}")


def _check_no_chains(pairs: Mapping[str, str], title: str) -> None:
    """Raise DataError if a name that should stay is itself replaced by another one."""
    for old, new in pairs.items():
        if old != new and pairs.get(new, new) != new:
            raise DataError(
                f"{title}: {old!r} becomes {new!r}, which becomes {pairs[new]!r}; "
                f"write {pairs[new]!r} for both"
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
