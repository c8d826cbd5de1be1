"""From raw tables to a Dataset: clean, code the ids, line up the items, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlrec_edge.data.align import NameMerge, align_columns
from tlrec_edge.data.clean import NO_DOMAIN, CleanLog, clean_interactions
from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset, EvalRows, Interactions, Split
from tlrec_edge.data.eval_rows import RawEvalRows, encode_eval_rows, read_raw_eval_rows, split_ids
from tlrec_edge.data.items import RawItems, build_item_table, empty_items, read_items
from tlrec_edge.data.parse import sort_ids
from tlrec_edge.data.read import read_table
from tlrec_edge.data.scale import (
    DomainStatistics,
    check_scale,
    distant_medians,
    domain_statistics,
    scale_items,
    scale_log,
)
from tlrec_edge.data.schema import Schema
from tlrec_edge.data.split import make_split
from tlrec_edge.errors import DataError

SINGLE_DOMAIN = "all"
"""The one domain of data that has none."""
CATEGORY_DOMAIN = "categories"
"""Domain of category rows where the data gives them none: apart from the items, so that it can be a transfer source."""


@dataclass(frozen=True)
class SplitPlan:
    """How to split; ``candidates`` is the file of test rows that kind ``given`` needs.

    ``negatives`` a question, 0 = all candidates. ``mask_seen``: what a user already had is not ranked. ``refit``: the
    final model also learns from the validation rows.
    """

    kind: str = "leave-one-out"
    folds: int = 5
    test_from: int | str | None = None
    valid_from: int | str | None = None
    seed: int = 0
    negatives: int = 99
    min_buyers: int = 0
    candidates: Path | None = None
    mask_seen: bool = True
    refit: bool = True

    def __post_init__(self) -> None:
        if self.candidates is not None and self.kind != "given":
            raise DataError(f"a candidates file goes with --split given, not with {self.kind!r}")


@dataclass(frozen=True)
class Prepared:
    """A dataset, and how the columns of the interactions and items were understood."""

    dataset: Dataset
    interaction_columns: Mapping[str, str]
    item_columns: Mapping[str, str]
    unused_columns: tuple[str, ...]
    statistics: tuple[DomainStatistics, ...] = ()
    merged: tuple[NameMerge, ...] = ()


class DomainAssignment(NamedTuple):
    """Domain of each row as a code into ``names``; -1 = the row is in a dropped domain."""

    codes: NDArray[np.int32]
    names: list[str]


def prepare_files(
    interactions: Sequence[Path],
    items: Sequence[Path] = (),
    schema: Schema | None = None,
    plan: SplitPlan | None = None,
) -> Prepared:
    """Read files and build the dataset; several interaction files are put under each other."""
    if not interactions:
        raise DataError("no interaction file given; use --interactions FILE")
    return prepare_tables(
        [read_table(path) for path in interactions],
        [read_table(path) for path in items],
        schema,
        plan,
        source=", ".join(Path(path).name for path in (*interactions, *items)),
        where=", ".join(str(path) for path in interactions),
        items_where=", ".join(str(path) for path in items),
    )


def prepare_tables(
    interactions: Sequence[pd.DataFrame],
    items: Sequence[pd.DataFrame] = (),
    schema: Schema | None = None,
    plan: SplitPlan | None = None,
    *,
    source: str = "",
    where: str = "interactions",
    items_where: str = "items",
) -> Prepared:
    """Build the dataset from data frames; the names in errors come from ``where``.

    Users and items are numbered in the order of their ids: as numbers when all are whole numbers, else as strings.
    """
    schema, plan = schema or Schema(), plan or SplitPlan()
    raw_rows = read_raw_eval_rows(plan.candidates) if plan.candidates else None
    log = clean_interactions(interactions, schema, where)
    raw_items = (
        read_items(items, schema, items_where, check_domains=log.domain is None)
        if items
        else empty_items()
    )
    _check_domains(log, raw_items, schema)
    home_domains = _home_domains(log, raw_items)
    # Before ids are merged: a row stays in the domain of its own item.
    assignment = _assign_domains(log, home_domains, schema)
    log, raw_items, home_domains = _merge_items(log, raw_items, home_domains, schema.item_map)
    if not (assignment.codes >= 0).any():
        raise DataError(
            f"{where}: no rows are left outside the dropped domains {', '.join(schema.drop_domains)}"
        )
    known_items = {
        item for item in raw_items.ids if home_domains.get(item) not in schema.drop_domains
    }
    users, item_ids = _all_ids(log, assignment.codes >= 0, known_items, raw_rows, schema.item_map)
    user_row, item_row = _index_of(users), _index_of(item_ids)
    item_row |= {
        one: item_row[other] for one, other in schema.item_map.items() if other in item_row
    }
    table = _sorted_log(
        log, _codes(log.user, user_row), _codes(log.item, item_row), assignment.codes
    )
    log = scale_log(log, schema, assignment.codes, assignment.names)
    features, unreadable = build_item_table(raw_items, log, item_ids)
    check_scale(schema, features.numeric, assignment.names)
    domain_row = _index_of(assignment.names)
    home = np.array([domain_row.get(home_domains.get(item, ""), -1) for item in item_ids], np.int32)
    if schema.by_domain and (home < 0).all():
        raise DataError(
            "[scale] by_domain: no item has a domain; add a domain column to the item table, or give factors"
        )
    cleaning = _cleaning(log, raw_items, assignment.codes >= 0, unreadable, schema)
    if raw_items.ids:
        features, scaled = scale_items(features, schema, home, assignment.names)
        cleaning |= scaled
        found = domain_statistics(features.numeric, home, assignment.names, schema)
    else:
        found = domain_statistics(
            {"price": log.price} if log.price is not None else {},
            assignment.codes,
            assignment.names,
            schema,
        )
    ids = {
        column: raw_items.texts(rule.id, item_ids)
        for column, rule in schema.align.items()
        if rule.id
    }
    at_home = np.flatnonzero(home >= 0)
    features, merged = align_columns(
        replace(features, by_domain=schema.by_domain),
        schema.align,
        ids,
        np.concatenate([table.item, at_home]),
        np.concatenate([table.domain, home[at_home]]),
    )
    dataset = Dataset(
        users=tuple(users),
        items=tuple(item_ids),
        domains=tuple(assignment.names),
        interactions=table,
        features=features,
        split=_split(
            table, users, plan, encode_eval_rows(raw_rows, user_row, item_row) if raw_rows else None
        ),
        item_domain=home,
        cleaning={
            **cleaning,
            "interactions": len(table),
            "users": len(users),
            "items": len(item_ids),
        },
        source=source,
    )
    return Prepared(dataset, dict(log.roles), dict(raw_items.kinds), log.unused, found, merged)


def _merge_items(
    log: CleanLog, raw_items: RawItems, home_domains: dict[str, str], item_map: Mapping[str, str]
) -> tuple[CleanLog, RawItems, dict[str, str]]:
    """Apply the item map; the home of a product is that of the id that stays, where it has one."""
    if item_map and not any(name in item_map for name in (*log.item.names, *raw_items.ids)):
        raise DataError(
            f"none of the {len(item_map)} ids in column from of item_map is in the data; swap from and to?"
        )
    moved = {item_map[name]: home for name, home in home_domains.items() if name in item_map}
    stayed = {name: home for name, home in home_domains.items() if name not in item_map}
    return log.merge_items(item_map), raw_items.merge_items(item_map), {**moved, **stayed}


def _split(
    table: Interactions, users: Sequence[str], plan: SplitPlan, rows: EvalRows | None
) -> Split:
    options = {
        name: getattr(plan, name)
        for name in (
            "folds",
            "test_from",
            "valid_from",
            "seed",
            "negatives",
            "min_buyers",
            "mask_seen",
            "refit",
        )
    }
    return make_split(table, users, plan.kind, rows=rows, **options)


def _check_domains(log: CleanLog, raw_items: RawItems, schema: Schema) -> None:
    if schema.domains and log.domain is None and raw_items.home is None:
        raise DataError(
            'the schema has [domains] but no table has a domain column; name it: domain = "column"'
        )


def _all_ids(
    log: CleanLog,
    keep: NDArray[np.bool_],
    known_items: set[str],
    raw_rows: RawEvalRows | None,
    item_map: Mapping[str, str],
) -> tuple[list[str], list[str]]:
    """Return the ids of users and items: of the kept rows, the item file and the test rows.

    A user all of whose rows were in dropped domains stays: folds are drawn over all users of the clean log.
    """
    users = set(log.users)
    items = {log.item.names[code] for code in np.unique(log.item.codes[keep])} | known_items
    if raw_rows:
        known = dict.fromkeys((*items, *item_map), 0)
        users.update(raw_rows.users)
        asked = (
            name
            for cell in (*raw_rows.items, *raw_rows.negatives)
            for name in split_ids(cell, known)
        )
        items.update(item_map.get(name, name) for name in asked)
    return _in_order(users), _in_order(items)


def _in_order(names: set[str]) -> list[str]:
    ordered = sorted(names)
    return [ordered[i] for i in sort_ids(ordered)]


def _index_of(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


def _codes(labels: Any, row: Mapping[str, int]) -> NDArray[np.int32]:
    table = np.array([row.get(name, -1) for name in labels.names], np.int32)
    rows: NDArray[np.int32] = table[labels.codes]
    return rows


def _home_domains(log: CleanLog, raw_items: RawItems) -> dict[str, str]:
    """Return the home domain of each item that has one."""
    home_domains: dict[str, str] = {}
    if raw_items.home is not None:
        home_domains.update(
            (item, raw_items.home.names[code])
            for item, code in zip(raw_items.ids, raw_items.home.codes, strict=True)
            if code >= 0
        )
    elif log.domain is None:
        home_domains.update(dict.fromkeys(raw_items.ids, SINGLE_DOMAIN))
        home_domains.update(
            (log.item.names[code], SINGLE_DOMAIN)
            for code in np.unique(log.item.codes[~log.is_category])
        )
    for code in np.unique(log.item.codes[log.is_category]):
        given = (
            np.unique(log.domain.codes[log.item.codes == code])
            if log.domain is not None
            else np.zeros(0, int)
        )
        if log.domain is None:
            home_domains[log.item.names[code]] = CATEGORY_DOMAIN
        elif len(given) == 1:
            home_domains[log.item.names[code]] = log.domain.names[given[0]]
    return home_domains


def _assign_domains(
    log: CleanLog, home_domains: Mapping[str, str], schema: Schema
) -> DomainAssignment:
    """Give each row its own domain, or its item's home."""
    if log.domain is not None:
        codes, names = log.domain
    else:
        names = sorted({*home_domains.values(), NO_DOMAIN})
        position = _index_of(names)
        codes = np.array(
            [position[home_domains.get(item, NO_DOMAIN)] for item in log.item.names], np.int64
        )[log.item.codes]
    used = {names[code] for code in np.unique(codes)} | set(home_domains.values())
    kept = sorted(used - set(schema.drop_domains))
    recode = np.array([_index_of(kept).get(name, -1) for name in names], np.int32)
    return DomainAssignment(recode[codes], kept)


def _sorted_log(
    log: CleanLog, user: NDArray[np.int32], item: NDArray[np.int32], domain: NDArray[np.int32]
) -> Interactions:
    order = np.lexsort((log.time, user))  # stable: rows of equal time stay in the file's order
    order = order[domain[order] >= 0]
    return Interactions(
        user=user[order],
        item=item[order],
        domain=domain[order],
        event=log.event[order].astype(np.int32),
        weight=log.weight[order].astype(np.float32),
        time=log.time[order],
        position=order.astype(np.int32),
    )


def _cleaning(
    log: CleanLog, raw_items: RawItems, keep: NDArray[np.bool_], unreadable: int, schema: Schema
) -> dict[str, int]:
    counts = dict(log.counts)
    if schema.drop_domains:
        counts["not a product"] = int((~keep).sum())
        counts["rows kept"] -= counts["not a product"]
    if raw_items.ids:
        known = set(raw_items.ids)
        without = np.array([name not in known for name in log.item.names], bool)
        counts["item without metadata (kept)"] = int(
            (without[log.item.codes] & keep & ~log.is_category).sum()
        )
        counts.update(raw_items.counts)
        counts["feature values made missing"] = unreadable
    return counts


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return what prepare reports: sizes, the split, the cleaning table and how columns were understood."""
    dataset = prepared.dataset
    log, split = dataset.interactions, dataset.split
    sold = np.unique(log.item)
    per_user = np.unique(log.user, return_counts=True)[1]
    per_domain = np.bincount(log.domain, minlength=len(dataset.domains))
    return {
        "users": len(dataset.users),
        "items": len(dataset.items),
        "items_never_sold": len(dataset.items) - len(sold),
        "interactions": len(log),
        "domains": dict(zip(dataset.domains, per_domain.tolist(), strict=True)),
        "split": {
            "kind": split.kind,
            **{
                name: int((split.role == role).sum())
                for name, role in (("train", TRAIN), ("valid", VALID), ("test", TEST))
            },
            "test_rows": len(split.rows) if split.rows is not None else None,
            "settings": dict(split.settings),
        },
        "rows_per_user": {"median": float(np.median(per_user)), "most": int(per_user.max())},
        "cleaning": dict(dataset.cleaning),
        "numbers": [asdict(column) for column in prepared.statistics],
        "far_apart": []
        if dataset.features.by_domain
        else [_median_gap(*pair) for pair in distant_medians(prepared.statistics)],
        "merged": [one._asdict() for one in prepared.merged],
        "interaction_columns": dict(prepared.interaction_columns),
        "item_features": dict(prepared.item_columns),
        "unused_columns": list(prepared.unused_columns),
    }


def _median_gap(high: DomainStatistics, low: DomainStatistics) -> dict[str, Any]:
    times = (high.median or 0.0) / (low.median or 1.0)
    return {"column": high.column, "high": high.domain, "low": low.domain, "times": times}
