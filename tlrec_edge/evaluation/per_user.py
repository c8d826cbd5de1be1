"""Figures by user in a file, so that a later evaluation can be compared with an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlrec_edge.core.metrics import Lift, lift_from_totals
from tlrec_edge.errors import DataError
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.tabular.numbers import parse_numbers
from tlrec_edge.tabular.tables import read_table
from tlrec_edge.tabular.writer import TableWriter
from tlrec_edge.types import Doubles, Longs

COLUMNS = {"model": str, "user": str, "n": int, "ndcg@10": float, "hr@10": float}


class PerUser(NamedTuple):
    """One model's figures by user, (u,) each.

    Means are rounded to six decimals, as in the file, so that equal figures compare as equal.

    Attributes:
        user: ids.
        n: the user's number of test rows.
        ndcg: mean NDCG@10 over them.
        hr: mean HR@10 over them.
    """

    user: tuple[str, ...]
    n: Longs
    ndcg: Doubles
    hr: Doubles


def by_user(evaluation: Evaluation, name: str, users: Sequence[str]) -> PerUser:
    """Return the figures of one model by user; ``users`` are the dataset's ids."""
    row, code, n = np.unique(
        evaluation.rankings[name].user, return_inverse=True, return_counts=True
    )
    ndcg, hr = (
        np.bincount(code, weights=evaluation.values(name, metric)) / n for metric in ("ndcg", "hr")
    )
    return PerUser(tuple(users[i] for i in row), n, ndcg.round(6), hr.round(6))


def write_per_user(path: Path, evaluation: Evaluation, users: Sequence[str]) -> None:
    """Write one row per model and user to a .csv, .csv.gz or .parquet file.

    Raises DataError if the file has another ending.
    """
    with TableWriter(path, COLUMNS) as writer:
        for name in evaluation.rankings:
            figures = by_user(evaluation, name, users)
            columns = (column.tolist() for column in (figures.n, figures.ndcg, figures.hr))
            writer.write([name] * len(figures.user), figures.user, *columns)


def read_per_user(path: Path, name: str) -> PerUser:
    """Read the figures of one model. Raises DataError if the file lacks a column or the model."""
    columns = read_table(path).columns
    if not set(COLUMNS) <= set(columns):
        raise DataError(f"{path} has columns {', '.join(columns)}; expected {', '.join(COLUMNS)}")
    model = columns["model"]
    if name not in model.names:
        raise DataError(f"{path} has no model {name!r}; it has {', '.join(model.names)}")
    rows = np.flatnonzero(model.codes == model.names.index(name))
    n, ndcg, hr = (
        np.array(parse_numbers(columns[figure].take(rows).texts()))
        for figure in ("n", "ndcg@10", "hr@10")
    )
    if not np.isfinite(n + ndcg + hr).all():
        raise DataError(
            f"{path} has a figure that is not a number; write it again with evaluate --per-user"
        )
    users = tuple(columns["user"].take(rows).texts())
    return PerUser(users, n.astype(np.int64), ndcg.round(6), hr.round(6))


def compare(of: PerUser, over: PerUser) -> Lift:
    """Return the paired lift of NDCG@10, which is the same as computed from the test rows.

    Raises DataError if the two differ in users or in their numbers of test rows.
    """
    n_of, n_over = (dict(zip(part.user, part.n, strict=True)) for part in (of, over))
    differing = [user for user in {**n_of, **n_over} if n_of.get(user) != n_over.get(user)]
    if differing:
        first = differing[0]
        raise DataError(
            f"the two evaluations have different test rows: {len(differing):,} users differ, "
            f"the first, {first!r}, with {n_of.get(first, 0)} and {n_over.get(first, 0)} rows; "
            "compare evaluations of the same dataset and domain"
        )
    position = {user: i for i, user in enumerate(over.user)}
    order = [position[user] for user in of.user]
    return lift_from_totals((of.ndcg - over.ndcg[order]) * of.n, of.n)
