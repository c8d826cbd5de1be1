"""Test rows from a file: user, positive item(s), the candidates to rank them among."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlrec_edge.data.dataset import Dataset, EvalRows
from tlrec_edge.data.parse import read_ids
from tlrec_edge.data.read import read_table
from tlrec_edge.data.schema import find_roles, require_role
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import INTERACTION_NAMES

_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": INTERACTION_NAMES["user"],
    "item": (*INTERACTION_NAMES["item"], "items", "positive", "positives"),
    "negatives": ("negatives", "candidates", "negative", "负样本", "候选"),
}


class RawEvalRows(NamedTuple):
    """Test rows before ids become codes; cells are as written."""

    users: list[str]
    items: list[str]
    negatives: list[str]
    source: str


def read_eval_rows(path: Path, dataset: Dataset) -> EvalRows:
    """Read test rows: columns user, item and optional negatives, both lists separated by commas.

    A row with several positives becomes one row each. Raises DataError that counts and names what the dataset lacks.
    """
    return encode_eval_rows(read_raw_eval_rows(path), dataset.user_row, dataset.item_row)


def read_raw_eval_rows(path: Path) -> RawEvalRows:
    """Read the file without a dataset."""
    table = read_table(path)
    roles = find_roles(list(table.columns), {}, _NAMES, str(path))
    for role in ("user", "item"):
        require_role(roles, role, list(table.columns), str(path))
    columns = {}
    for role, column in roles.items():
        labels = read_ids(table[column])
        columns[role] = [[*labels.names, ""][code] for code in labels.codes]
    for role in ("user", "item"):
        if "" in columns[role]:
            raise DataError(
                f"{path}: row {columns[role].index('') + 2} has no {role}; fill it in or take the row out"
            )
    return RawEvalRows(
        columns["user"], columns["item"], columns.get("negatives", [""] * len(table)), str(path)
    )


def split_ids(cell: str, known: Mapping[str, int]) -> list[str]:
    """Split a comma-separated list of ids; a cell that is itself a known id is one id, comma or not."""
    if not cell or cell in known:
        return [cell] if cell else []
    return [name for part in cell.split(",") if (name := part if part in known else part.strip())]


def encode_eval_rows(
    raw_rows: RawEvalRows, users: Mapping[str, int], items: Mapping[str, int]
) -> EvalRows:
    """Turn ids into codes; negatives equal to a row's positives are left out."""
    positives = [split_ids(cell, items) for cell in raw_rows.items]
    negatives = [split_ids(cell, items) for cell in raw_rows.negatives]
    _check_known("user", [[user] for user in raw_rows.users], users, raw_rows.source)
    _check_known("item", positives, items, raw_rows.source)
    _check_known("negative item", negatives, items, raw_rows.source)
    user, item, negative_rows = [], [], []
    for name, own_positives, own_negatives in zip(
        raw_rows.users, positives, negatives, strict=True
    ):
        kept = [items[other] for other in own_negatives if other not in set(own_positives)]
        for positive in own_positives:
            user.append(users[name])
            item.append(items[positive])
            negative_rows.append(kept)
    width = max(map(len, negative_rows), default=0)
    table = np.full((len(item), width), -1, np.int32)
    for row, kept in enumerate(negative_rows):
        table[row, : len(kept)] = kept
    return EvalRows(np.array(user, np.int32), np.array(item, np.int32), table)


def _check_known(
    kind: str, cells: Sequence[Sequence[str]], known: Mapping[str, int], source: str
) -> None:
    unknown = [
        (row, name) for row, names in enumerate(cells, 2) for name in names if name not in known
    ]
    if unknown:
        row, name = unknown[0]
        raise DataError(
            f"{source}: {len({row for row, _ in unknown})} of {len(cells)} rows name an unknown {kind}, "
            f"first {name[:60]!r} in line {row}; prepare with --split given --candidates, or remove them"
        )
