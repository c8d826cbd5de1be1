"""Figures by user in a small file, so that evaluations of different days can be compared on the same users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.metrics import Lift, lift_from_totals
from tlrec_edge.data.read import read_table
from tlrec_edge.errors import DataError
from tlrec_edge.evaluation.evaluate import Evaluation
from tlrec_edge.tabular.tables import TableWriter

COLUMNS = {"model": str, "user": str, "n": int, "ndcg@10": float, "hr@10": float}


class PerUser(NamedTuple):
    """One contender's figures: users, their number of tests and the means of NDCG@10 and HR@10 over them, (u,) each.

    Means have six decimals wherever they come from, so that equal ones differ by nothing.
    """

    user: tuple[str, ...]
    n: NDArray[np.int64]
    ndcg: NDArray[np.float64]
    hr: NDArray[np.float64]


def by_user(evaluation: Evaluation, name: str, users: Sequence[str]) -> PerUser:
    """Return a contender's figures by user; ``users`` are the dataset's ids."""
    row, code, n = np.unique(
        evaluation.rankings[name].user, return_inverse=True, return_counts=True
    )
    ndcg, hr = (
        np.bincount(code, weights=evaluation.values(name, metric)) / n for metric in ("ndcg", "hr")
    )
    return PerUser(tuple(users[i] for i in row), n, ndcg.round(6), hr.round(6))


def write_per_user(path: Path, evaluation: Evaluation, users: Sequence[str]) -> None:
    """Write a row a contender and user to a .csv, .csv.gz or .parquet file. Raises DataError for another name."""
    with TableWriter(path, COLUMNS) as writer:
        for name in evaluation.rankings:
            found = by_user(evaluation, name, users)
            numbers = (column.tolist() for column in (found.n, found.ndcg, found.hr))
            writer.write([name] * len(found.user), found.user, *numbers)


def read_per_user(path: Path, name: str) -> PerUser:
    """Read a contender's figures. Raises DataError that names the columns or contenders the file holds."""
    table = read_table(path)
    if not set(COLUMNS) <= set(table.columns):
        raise DataError(
            f"{path} has columns {', '.join(map(str, table.columns))}; expected {', '.join(COLUMNS)}"
        )
    mine = table[table["model"] == name]
    if not len(mine):
        raise DataError(f"{path} holds no {name!r}; it holds {', '.join(table['model'].unique())}")
    try:
        return PerUser(
            tuple(mine["user"].astype(str)),
            mine["n"].to_numpy(np.int64),
            mine["ndcg@10"].to_numpy(np.float64).round(6),
            mine["hr@10"].to_numpy(np.float64).round(6),
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}; write it again with evaluate --per-user") from error


def compare(of: PerUser, over: PerUser) -> Lift:
    """Return the paired lift of NDCG@10 over the tests; that of the rows themselves.

    Raises DataError where users, or how often they were asked, differ.
    """
    mine, other = dict(zip(of.user, of.n, strict=True)), dict(zip(over.user, over.n, strict=True))
    differ = [user for user in {**mine, **other} if mine.get(user) != other.get(user)]
    if differ:
        raise DataError(
            f"the two evaluations ask different questions: {len(differ):,} users differ, first {differ[0]!r} with "
            f"{mine.get(differ[0], 0)} and {other.get(differ[0], 0)} tests; compare those of one dataset and domain"
        )
    place = {user: at for at, user in enumerate(over.user)}
    order = [place[user] for user in of.user]
    return lift_from_totals((of.ndcg - over.ndcg[order]) * of.n, of.n)
