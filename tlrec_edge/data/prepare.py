"""From raw tables to a Dataset: clean, number the ids, build the item features, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.data.align import NameMerge, align_columns
from tlrec_edge.data.dataset import Dataset, Interactions, ItemTable, Split
from tlrec_edge.data.domains import DomainAssignment, assign_domains
from tlrec_edge.data.eval_rows import RawEvalRows, encode_eval_rows, read_raw_eval_rows
from tlrec_edge.data.items import RawItems, build_item_table
from tlrec_edge.data.match_ids import ItemMatch, match_items
from tlrec_edge.data.raw_data import Ids, RawData, collect_ids, read_raw, row_of, rows_of
from tlrec_edge.data.scale import (
    DomainStatistics,
    check_scale,
    domain_statistics,
    scale_items,
    scale_log,
)
from tlrec_edge.data.split import make_split
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.arrow import table_of
from tlrec_edge.tabular.clean import CleanLog
from tlrec_edge.tabular.schema import Schema, schema_of
from tlrec_edge.tabular.tables import read_table
from tlrec_edge.types import Bools, Ints


@dataclass(frozen=True)
class SplitPlan:
    """How to split the interactions into training, validation and test rows.

    Args:
        kind: one of ``SPLITS``: leave-one-out, last-basket, time, new-users or given.
        folds: parts of the users, for kind new-users.
        test_from: first time of the test, as "YYYY-MM-DD[ HH:MM:SS]" (UTC) or seconds since 1970.
            By default the last 10 % of the rows are the test. For kinds time and new-users.
        valid_from: first time of the validation rows; by default the last 10 % before the test.
        seed: seed of everything that is drawn.
        negatives: sampled negatives per evaluation row; 0 ranks among all candidates.
        min_buyers: buyers before the test that an item needs to be a candidate.
        candidates: file of test rows, for kind given (see ``read_eval_rows``).
        valid_candidates: file of validation rows, for kind given. Pairs of it that are among the
            interactions are learned by the final fit only. By default validation rows are drawn,
            like the test rows.
        mask_seen: exclude items that the user already had from the ranking.
        refit: fit the final model on the validation rows too.

    Raises:
        DataError: if ``candidates`` is combined with another kind than given, or
            ``valid_candidates`` is without ``candidates``.
    """

    kind: str = "leave-one-out"
    folds: int = 5
    test_from: int | str | None = None
    valid_from: int | str | None = None
    seed: int = 0
    negatives: int = 99
    min_buyers: int = 0
    candidates: Path | None = None
    valid_candidates: Path | None = None
    mask_seen: bool = True
    refit: bool = True

    def __post_init__(self) -> None:
        if self.candidates is not None and self.kind != "given":
            raise DataError(
                f"a candidates file goes with --split given, not with {self.kind!r}; "
                "leave out one of the two"
            )
        if self.valid_candidates is not None and self.candidates is None:
            raise DataError(
                "validation rows of a file (--valid-candidates) go with test rows of a file: "
                "add --candidates FILE"
            )


@dataclass(frozen=True)
class Prepared:
    """A dataset, and how its tables were understood.

    Attributes:
        dataset: the dataset.
        interaction_columns: role to column of the interaction tables.
        item_columns: feature column of the item tables to its kind; a list is one of its own.
        unused_columns: columns of the interaction tables that nothing uses.
        statistics: the numeric columns by domain, after scaling.
        merged: category names that were merged into others.
        formats: how the files were read, such as "text, utf-8".
        time_form: how times were read, such as "ISO 8601"; "" if the tables have none.
        item_match: how many items of the log the item tables know; None without item tables.
        notes: what is odd about the tables, one sentence each; it may be right.
    """

    dataset: Dataset
    interaction_columns: Mapping[str, str]
    item_columns: Mapping[str, str]
    unused_columns: tuple[str, ...]
    statistics: tuple[DomainStatistics, ...] = ()
    merged: tuple[NameMerge, ...] = ()
    formats: tuple[str, ...] = ()
    time_form: str = ""
    item_match: ItemMatch | None = None
    notes: tuple[str, ...] = ()


def prepare_files(
    interactions: Sequence[Path],
    items: Sequence[Path] = (),
    schema: Schema | Mapping[str, Any] | None = None,
    plan: SplitPlan | None = None,
) -> Prepared:
    """Read files and build a dataset.

    Args:
        interactions: files of interactions, which are concatenated: text with separators, JSON
            lines or Parquet, compressed or not, or folders of such files.
        items: files of item features, one row an item; if an item has several, the first counts.
        schema: roles of the columns and cleaning rules, as a ``Schema`` or as the tables of a
            schema file; by default columns are found by their common names.
        plan: how to split; by default leave-one-out.

    Returns:
        The dataset, and a description of how its columns were read.

    Raises:
        DataError: if a file, a column or the split cannot be used. The message names the file and,
            if one is at fault, the line or the column.
    """
    if not interactions:
        raise DataError("no interaction file given; use --interactions FILE")
    schema = schema_of(schema)
    item_files = schema.files.with_header()
    return prepare_tables(
        [read_table(path, schema.files) for path in interactions],
        [read_table(path, item_files) for path in items],
        schema,
        plan,
        source=", ".join(Path(path).name for path in (*interactions, *items)),
        table_name=", ".join(map(str, interactions)),
        items_name=", ".join(map(str, items)),
    )


def prepare_tables(
    interactions: Sequence[Any],
    items: Sequence[Any] = (),
    schema: Schema | Mapping[str, Any] | None = None,
    plan: SplitPlan | None = None,
    *,
    source: str = "",
    table_name: str = "interactions",
    items_name: str = "items",
) -> Prepared:
    """Build a dataset from data frames.

    Users and items are numbered in the order of their ids: as numbers if all are integers, else as
    strings.

    Args:
        interactions: tables of interactions, which are concatenated: pandas, polars or pyarrow
            tables, or others with the Arrow PyCapsule interface.
        items: tables of item features.
        schema: roles of the columns and cleaning rules, as a ``Schema`` or as the tables of a
            schema file; by default columns are found by their common names.
        plan: how to split; by default leave-one-out.
        source: origin of the data, for the model card.
        table_name: name of the interaction tables in error messages.
        items_name: name of the item tables in error messages.

    Returns:
        The dataset, and a description of how its columns were read.

    Raises:
        DataError: if a column or the split cannot be used, or if cleaning leaves no row.

    Example:
        >>> import pandas as pd
        >>> log = pd.DataFrame({"user": ["ann", "ann", "bob"], "item": ["tea", "mug", "tea"]})
        >>> prepare_tables([log]).dataset.items
        ('mug', 'tea')
    """
    schema, plan = schema_of(schema), SplitPlan() if plan is None else plan
    if not isinstance(plan, SplitPlan):
        raise DataError(f"split is {plan!r:.80}, expected a SplitPlan")
    eval_rows = [
        read_raw_eval_rows(path, schema)
        for path in (plan.candidates, plan.valid_candidates)
        if path is not None
    ]
    log_tables = [table_of(frame, table_name) for frame in interactions]
    item_tables = [table_of(frame, items_name) for frame in items]
    raw = read_raw(log_tables, item_tables, schema, table_name, items_name)
    match = _match(raw, items_name) if items else None
    # Before ids are merged, so that an interaction stays in the domain of the item it names.
    domains = assign_domains(raw.log, raw.item_domains, schema.drop_domains)
    raw = raw.merge_items(schema.item_map)
    if not domains.keep.any():
        dropped = ", ".join(schema.drop_domains)
        raise DataError(
            f"{table_name}: no rows are left outside the dropped domains {dropped}; "
            "shorten drop_domains in the schema"
        )
    ids = collect_ids(raw, domains.keep, schema, eval_rows)
    log = _sorted_log(raw.log, ids, domains)
    items_built = _build_items(raw, ids, domains, log, schema)
    sizes = {"interactions": len(log), "users": len(ids.users), "items": len(ids.items)}
    dataset = Dataset(
        users=ids.users,
        items=ids.items,
        domains=tuple(domains.names),
        interactions=log,
        features=items_built.features,
        split=_split(log, ids, row_of(domains.names), plan, eval_rows),
        item_domain=items_built.item_domain,
        cleaning={**items_built.cleaning, **sizes},
        source=source,
        schema=_resolved(schema, raw.log),
    )
    return Prepared(
        dataset,
        interaction_columns=dict(raw.log.roles),
        item_columns={
            name: f"list, separated by {schema.lists[name]}" if name in schema.lists else kind
            for name, kind in raw.items.kinds.items()
        },
        unused_columns=raw.log.unused,
        statistics=items_built.statistics,
        merged=items_built.merged,
        formats=tuple(dict.fromkeys(f for t in (*log_tables, *item_tables) for f in t.formats)),
        time_form=raw.log.reading.form if raw.log.reading else "",
        item_match=match,
        notes=(
            *raw.log.notes,
            *raw.items.notes,
            *([match.note] if match and match.note else []),
            *(_notes_on_new_ids(raw, ids) if eval_rows else []),
            *(note for rows in eval_rows for note in _notes_on_columns(rows)),
        ),
    )


def _notes_on_new_ids(raw: RawData, ids: Ids) -> list[str]:
    """Say how many users and items only the test rows have."""
    users, items = raw.log.users, {*raw.log.item.names, *raw.items.ids}
    new = {
        "user": [name for name in ids.users if name not in users],
        "item": [name for name in ids.items if name not in items],
    }
    return [
        f"{counted(len(names), f'{kind} is', f'{kind}s are')} only in the test rows, "
        f"first {names[0]!r:.60}"
        for kind, names in new.items()
        if names
    ]


def _notes_on_columns(rows: RawEvalRows) -> list[str]:
    return [f"{rows.source}: columns not used: {', '.join(rows.unused)}"] if rows.unused else []


def _match(raw: RawData, items_name: str) -> ItemMatch:
    log = raw.log
    sold = np.unique(log.item.codes[~log.is_category])
    return match_items([log.item.names[code] for code in sold], raw.items.ids, items_name)


def _resolved(schema: Schema, log: CleanLog) -> Schema:
    """Return the schema with the form of the times, which a short log may not show."""
    if schema.time_format or log.reading is None:
        return schema
    return replace(schema, time_format=log.reading.time_format)


class _BuiltItems(NamedTuple):
    """The item features, and what was counted and merged on the way."""

    features: ItemTable
    item_domain: Ints
    cleaning: Mapping[str, int]
    statistics: tuple[DomainStatistics, ...]
    merged: tuple[NameMerge, ...]


def _sorted_log(log: CleanLog, ids: Ids, domains: DomainAssignment) -> Interactions:
    """Return the interactions outside dropped domains, sorted by user and time."""
    user, item = rows_of(log.user, ids.user_row), rows_of(log.item, ids.item_row)
    order = np.lexsort((log.time, user))  # stable: rows of equal time keep the order of the file
    order = order[domains.keep[order]]
    return Interactions(
        user=user[order],
        item=item[order],
        domain=domains.codes[order],
        event=log.event[order].astype(np.int32),
        weight=log.weight[order].astype(np.float32),
        time=log.time[order],
        position=order.astype(np.int32),
    )


def _build_items(
    raw: RawData, ids: Ids, domains: DomainAssignment, log: Interactions, schema: Schema
) -> _BuiltItems:
    """Build the item features in common units and aligned names."""
    scaled_log = scale_log(raw.log, schema, domains.codes, domains.names)
    features, n_unreadable = build_item_table(raw.items, scaled_log, ids.items)
    check_scale(schema, features.numeric, domains.names)
    item_domain = _item_domains(raw, ids, domains, schema)
    cleaning = _cleaning_table(scaled_log, raw.items, domains.keep, n_unreadable, schema)
    if raw.items.ids:
        features, scaled = scale_items(features, schema, item_domain, domains.names)
        cleaning |= scaled
        statistics = domain_statistics(features.numeric, item_domain, domains.names, schema)
    else:
        prices = {} if scaled_log.price is None else {"price": scaled_log.price}
        statistics = domain_statistics(prices, domains.codes, domains.names, schema)
    rules = schema.align
    shared_ids = {
        column: raw.items.texts(rule.id, ids.items) for column, rule in rules.items() if rule.id
    }
    has_domain = np.flatnonzero(item_domain >= 0)
    features, merged = align_columns(
        replace(features, by_domain=schema.by_domain),
        rules,
        shared_ids,
        np.concatenate([log.item, has_domain]),
        np.concatenate([log.domain, item_domain[has_domain]]),
    )
    return _BuiltItems(features, item_domain, cleaning, statistics, merged)


def _item_domains(raw: RawData, ids: Ids, domains: DomainAssignment, schema: Schema) -> Ints:
    """Return the code of each item's own domain, -1 if it has none."""
    code_of = row_of(domains.names)
    codes = [code_of.get(raw.item_domains.get(item, ""), -1) for item in ids.items]
    item_domain = np.array(codes, np.int32)
    if schema.by_domain and (item_domain < 0).all():
        raise DataError(
            "[scale] by_domain: no item has a domain; "
            "add a domain column to the item table, or give factors"
        )
    return item_domain


def _cleaning_table(
    log: CleanLog, items: RawItems, keep: Bools, n_unreadable: int, schema: Schema
) -> dict[str, int]:
    counts = dict(log.counts)
    if schema.drop_domains:
        counts["not a product"] = int((~keep).sum())
        counts["rows kept"] -= counts["not a product"]
    if items.ids:
        known = set(items.ids)
        is_unlisted = np.array([name not in known for name in log.item.names], bool)
        unlisted = is_unlisted[log.item.codes] & keep & ~log.is_category
        counts["item without metadata (kept)"] = int(unlisted.sum())
        counts.update(items.counts)
        counts["feature values made missing"] = n_unreadable
    return counts


def _split(
    log: Interactions,
    ids: Ids,
    domains: Mapping[str, int],
    plan: SplitPlan,
    eval_rows: Sequence[RawEvalRows],
) -> Split:
    rows = [encode_eval_rows(raw, ids.user_row, ids.item_row, domains) for raw in eval_rows]
    return make_split(
        log,
        ids.users,
        plan.kind,
        folds=plan.folds,
        test_from=plan.test_from,
        valid_from=plan.valid_from,
        seed=plan.seed,
        negatives=plan.negatives,
        min_buyers=plan.min_buyers,
        mask_seen=plan.mask_seen,
        refit=plan.refit,
        rows=rows[0] if rows else None,
        valid_rows=rows[1] if len(rows) > 1 else None,
    )
