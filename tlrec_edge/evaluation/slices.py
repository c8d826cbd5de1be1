"""Which kind of question each test row is: how well the user, the item and the time were known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.metrics import METRICS, clustered_mean, lift_json, nan_to_none, paired_lift
from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.priors import popularity
from tlrec_edge.types import Ints

SliceLabels = NDArray[np.str_]
UNKNOWN = "unknown"
MIN_USERS = 10
"""Users a slice needs for a verdict: with fewer, errors clustered by user are too small."""
HISTORY = {"0": 0, "1-4": 1, "5-19": 5, "20-99": 20, "100+": 100}
"""Name -> the shortest history it holds, in interactions of all domains."""
USER = ("no history", "none in the target", "known in the target")
ITEM = ("never sold", "sold elsewhere only", "sold in the target")
DECILES = ("1 least bought", *(str(i) for i in range(2, 10)), "10 most bought")
SLICE_ORDER: Mapping[str, tuple[str, ...]] = {
    "user": USER,
    "item": ITEM,
    "history": tuple(HISTORY),
    "popularity": DECILES,
}
"""Slices whose names have an order of their own; those by domain and time follow their names."""


class RowOrigin(NamedTuple):
    """Where the test rows stand in the log, (m,) each: seconds since 1970 (0 = unknown) and domain (-1 = unknown)."""

    time: NDArray[np.int64]
    domain: Ints


def find_eval_rows(dataset: Dataset, task: Task, role: int = TEST) -> RowOrigin:
    """Look the task's pairs up among the target's held-out rows; a pair held out twice counts when it came first.

    Rows that came from a file are not in the log: their time is unknown, their domain the item's home.
    """
    log = dataset.interactions
    held_out = log.select(task.in_target(log) & (dataset.split.role == role))
    order = np.lexsort((held_out.position, held_out.time))
    pair, first = np.unique(
        held_out.user[order].astype(np.int64) * task.n_items + held_out.item[order],
        return_index=True,
    )
    pairs = task.rows.user.astype(np.int64) * task.n_items + task.rows.item
    place = np.searchsorted(pair, pairs)
    known = np.isin(pairs, pair)
    home = dataset.item_domain[task.rows.item]
    time, domain = (
        np.zeros(len(pairs), np.int64),
        np.where(np.isin(home, task.target), home, -1).astype(np.int32),
    )
    rows = order[first[place[known]]]
    time[known], domain[known] = held_out.time[rows], held_out.domain[rows]
    return RowOrigin(time, domain)


def slice_rows(dataset: Dataset, task: Task) -> dict[str, SliceLabels]:
    """Return the names of every test row's slices, (m,) each: by user, item, history, popularity, domain, period.

    ``popularity`` are deciles of the candidates by their buyers in the target. ``domain`` is there for several targets,
    ``period`` where some time is known: months, or weeks of one month, or years of more than 24 months.
    """
    rows, found = task.rows, find_eval_rows(dataset, task)
    in_target = task.in_target(task.history)
    length = np.bincount(task.history.user, minlength=task.n_users)[rows.user]
    known = np.bincount(task.history.user[in_target], minlength=task.n_users)[rows.user] > 0
    sold = np.bincount(task.train.item, minlength=task.n_items)[rows.item] > 0
    sold_in_target = (
        np.bincount(task.train.item[task.in_target(task.train)], minlength=task.n_items)[rows.item]
        > 0
    )
    labels = {
        "user": np.array(USER)[np.where(known, 2, length > 0)],
        "item": np.array(ITEM)[np.where(sold_in_target, 2, sold)],
        "history": np.array(tuple(HISTORY))[
            np.searchsorted(tuple(HISTORY.values()), length, side="right") - 1
        ],
        "popularity": np.array(DECILES)[_decile(popularity(task))[task.column[rows.item]]],
    }
    if len(task.target) > 1:
        labels["domain"] = np.array([*dataset.domains, UNKNOWN])[found.domain]
    if found.time.any():
        labels["period"] = _periods(found.time)
    return labels


def _decile(buyers: NDArray[Any]) -> NDArray[np.int64]:
    """Return each candidate's tenth, 0 = least bought; equal ones stay together, in the middle of their places."""
    rising = np.sort(buyers)
    middle = np.searchsorted(rising, buyers) + np.searchsorted(rising, buyers, side="right")
    return (middle * 5 // len(buyers)).astype(np.int64).clip(0, 9)


def _periods(time: NDArray[np.int64]) -> SliceLabels:
    stamps = time.astype("datetime64[s]")
    months = len(np.unique(stamps[time != 0].astype("datetime64[M]")))
    if months < 2:
        days = stamps.astype("datetime64[D]")
        monday = days - (days.astype(np.int64) + 3) % 7  # 1970 began on a Thursday
        names = np.char.add("week of ", monday.astype(str))
    else:
        names = stamps.astype("datetime64[M]" if months <= 24 else "datetime64[Y]").astype(str)
    return np.where(time != 0, names, UNKNOWN)


class RankedModel(NamedTuple):
    """A contender by name, and the ranks (m,) it gave the positives."""

    name: str
    rank: NDArray[np.float64]


def slice_table(
    slices: Mapping[str, SliceLabels], user: Ints, model: RankedModel, over: RankedModel
) -> list[dict[str, Any]]:
    """Return a line a slice that has rows: its size, both contenders' figures and the paired lift between them."""
    lines = []
    for by, label in slices.items():
        present = np.unique(label).tolist()
        for name in [n for n in SLICE_ORDER.get(by, sorted(present)) if n in present]:
            at = label == name
            users = len(np.unique(user[at]))
            line: dict[str, Any] = {"by": by, "slice": name, "tests": int(at.sum()), "users": users}
            values = {}
            for side, prefix in ((model, ""), (over, "over.")):
                values[prefix] = METRICS["ndcg"](side.rank[at], 10)
                mean = clustered_mean(values[prefix], user[at])
                line |= nan_to_none(
                    {
                        f"{prefix}ndcg@10": mean.mean,
                        f"{prefix}ndcg@10.se": mean.se,
                        f"{prefix}recall@10": float(METRICS["hr"](side.rank[at], 10).mean()),
                    }
                )
            lift = lift_json(
                model.name, over.name, paired_lift(values[""], values["over."], user[at])
            )
            lines.append(
                {
                    **line,
                    "lift": lift if users >= MIN_USERS else {**lift, "verdict": "too few users"},
                }
            )
    return lines
