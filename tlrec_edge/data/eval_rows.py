"""Evaluation rows from a file: user, positive items, and the negatives to rank them among."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlrec_edge.data.dataset import Dataset, EvalRows
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import read_ids
from tlrec_edge.tabular.column_names import INTERACTION_NAMES, normalize_key
from tlrec_edge.tabular.roles import find_roles, require_role
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.tables import read_table

_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": INTERACTION_NAMES["user"],
    "item": (*INTERACTION_NAMES["item"], "items", "positive", "positives"),
    "negatives": ("negatives", "candidates", "negative", "负样本", "候选"),
    "domain": ("domain", "market"),
}
_ONE_NEGATIVE = re.compile(r"neg(ative)?s?\d+|负样本\d+")
"""A column of one negative, such as "neg_1", as ``normalize_key`` writes it."""
_MAX_DOMAINS = 10
"""Domains that a message names."""
_LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)


class RawEvalRows(NamedTuple):
    """Evaluation rows as text.

    Attributes:
        users: one user id a row.
        items: one or more item ids a row, separated by commas.
        negatives: the cells of each row that have negatives: item ids, separated by commas.
        domains: the domain that each row tests, "" for every domain; None: there is no such column.
        source: name of the file in error messages.
        unused: columns that are not read.
    """

    users: list[str]
    items: list[str]
    negatives: list[tuple[str, ...]]
    domains: list[str] | None
    source: str
    unused: tuple[str, ...] = ()

    @property
    def item_cells(self) -> list[str]:
        """All cells that have items."""
        return [*self.items, *(cell for cells in self.negatives for cell in cells)]


def read_eval_rows(path: Path, dataset: Dataset) -> EvalRows:
    """Read evaluation rows: columns user and item, and optionally negatives and domain.

    The items and the negatives of a cell are separated by commas; or each negative has a column,
    neg1, neg2 and so on. A row with several items becomes one row for each, and an id that occurs
    twice in a row is left out. A row with a domain is a row of that target only.

    Raises DataError if a column or a value is missing, or if the dataset lacks a user, an item or a
    domain; the message counts such rows and names the first.
    """
    raw_rows = read_raw_eval_rows(path, dataset.schema)
    return encode_eval_rows(raw_rows, dataset.user_row, dataset.item_row, _codes_of(dataset))


def _codes_of(dataset: Dataset) -> dict[str, int]:
    """Return the code of each domain by its name."""
    return {name: code for code, name in enumerate(dataset.domains)}


def with_eval_rows(dataset: Dataset, path: Path, schema: Schema | None = None) -> Dataset:
    """Return the dataset with the test rows of a file.

    Items that the dataset lacks are added without features: a model scores them as unknown.
    ``schema`` names the file's columns; None: the schema of the dataset does. Raises DataError as
    ``read_eval_rows``, and if the dataset has none of the items.
    """
    raw_rows = read_raw_eval_rows(path, schema or dataset.schema)
    cells = raw_rows.item_cells
    names = dict.fromkeys(name for cell in cells for name in split_ids(cell, dataset.item_row))
    new = [name for name in names if name not in dataset.item_row]
    if len(new) < len(names):
        dataset = dataset.with_items(new)
    rows = encode_eval_rows(raw_rows, dataset.user_row, dataset.item_row, _codes_of(dataset))
    return dataset.replace(split=replace(dataset.split, rows=rows))


def read_raw_eval_rows(path: Path, schema: Schema) -> RawEvalRows:
    """Read the file as text. Raises DataError if a column or a value is missing.

    The columns have common names, or those of the interactions in the schema.
    """
    table = read_table(path, schema.files.with_header())
    declared = {role: name for role, name in schema.interactions.items() if role in _NAMES}
    roles = find_roles(list(table.columns), declared, _NAMES, str(path), strict=False)
    for role in ("user", "item"):
        require_role(roles, role, list(table.columns), str(path), section=None)
    columns = {role: read_ids(table.columns[name]).texts() for role, name in roles.items()}
    for role in ("user", "item"):
        if "" in columns[role]:
            line = columns[role].index("") + 2
            raise DataError(f"{path}: line {line} has no {role}; fill it in or remove the line")
    one_each = [name for name in table.columns if _ONE_NEGATIVE.fullmatch(normalize_key(name))]
    cells = [columns["negatives"]] if "negatives" in columns else []
    cells += [read_ids(table.columns[name]).texts() for name in one_each]
    domains = columns.get("domain")
    return RawEvalRows(
        columns["user"],
        columns["item"],
        list(zip(*cells, strict=True)) if cells else [()] * table.rows,
        None if domains is None else [name and schema.domain_of(name) for name in domains],
        str(path),
        tuple(name for name in table.columns if name not in {*roles.values(), *one_each}),
    )


def split_ids(cell: str, known: Mapping[str, int]) -> list[str]:
    """Split a comma-separated cell, or a list as Python or JSON writes it, into ids.

    A cell that is itself a known id is not split.
    """
    if not cell or cell in known:
        return [cell] if cell else []
    marks = " "
    if _LIST.fullmatch(cell):
        cell, marks = cell.strip()[1:-1], " '\"\n"
    parts = cell.split(",")
    return [name for part in parts if (name := part if part in known else part.strip(marks))]


def encode_eval_rows(
    raw_rows: RawEvalRows,
    users: Mapping[str, int],
    items: Mapping[str, int],
    domains: Mapping[str, int],
) -> EvalRows:
    """Replace ids by rows of the dataset, and leave out ids that occur twice in a row.

    A repeated negative would count twice in the rank, and a negative that is a positive of the row
    would compete with itself. ``EvalRows.duplicates`` counts them.

    Raises DataError if a user, an item or a domain is unknown.
    """
    positives = [split_ids(cell, items) for cell in raw_rows.items]
    negatives = [
        [name for cell in cells for name in split_ids(cell, items)] for cells in raw_rows.negatives
    ]
    _check_known("user", [[user] for user in raw_rows.users], users, raw_rows.source)
    _check_known("item", positives, items, raw_rows.source)
    _check_known("negative item", negatives, items, raw_rows.source)
    domain_names = raw_rows.domains or [""] * len(positives)
    _check_domains(domain_names, domains, raw_rows.source)
    user, item, negative_rows, codes, duplicates = [], [], [], [], 0
    for name, row_positives, row_negatives, domain in zip(
        raw_rows.users, positives, negatives, domain_names, strict=True
    ):
        targets = dict.fromkeys(row_positives)
        others = [items[i] for i in dict.fromkeys(row_negatives) if i not in targets]
        duplicates += len(row_positives) + len(row_negatives) - len(targets) - len(others)
        for target in targets:
            user.append(users[name])
            item.append(items[target])
            negative_rows.append(others)
            codes.append(domains.get(domain, -1))
    width = max(map(len, negative_rows), default=0)
    table = np.full((len(item), width), -1, np.int32)
    for row, others in enumerate(negative_rows):
        table[row, : len(others)] = others
    return EvalRows(
        np.array(user, np.int32),
        np.array(item, np.int32),
        table,
        None if raw_rows.domains is None else np.array(codes, np.int32),
        duplicates=duplicates,
    )


def _check_domains(names: Sequence[str], known: Mapping[str, int], source: str) -> None:
    line = next((i for i, name in enumerate(names, 2) if name and name not in known), None)
    if line is not None:
        raise DataError(
            f"{source}: line {line} has the domain {names[line - 2]!r:.60}; known: "
            f"{', '.join(list(known)[:_MAX_DOMAINS])}; correct it, or leave it empty for all"
        )


def _check_known(
    kind: str, cells: Sequence[Sequence[str]], known: Mapping[str, int], source: str
) -> None:
    unknown = [
        (line, name) for line, names in enumerate(cells, 2) for name in names if name not in known
    ]
    if unknown:
        line, name = unknown[0]
        n_rows = len({line for line, _ in unknown})
        raise DataError(
            f"{source}: {n_rows} of {len(cells)} rows name an unknown {kind}, first {name[:60]!r} "
            f"in line {line}; prepare with --split given --candidates {source}, or remove them"
        )
