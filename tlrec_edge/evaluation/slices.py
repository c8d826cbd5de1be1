"""Slices of the test rows: by user, item, history length, popularity, domain and period."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.metrics import METRICS, clustered_mean, lift_json, nan_to_none, paired_lift
from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.linear.priors import popularity
from tlrec_edge.types import Doubles, Floats, Ints, Longs

SliceLabels = NDArray[np.str_]
"""The slice of every test row, (m,)."""
UNKNOWN = "unknown"
MIN_USERS = 10
"""Smallest number of users for a verdict: with fewer, clustered standard errors are too small."""
HISTORY = {"0": 0, "1-4": 1, "5-19": 5, "20-99": 20, "100+": 100}
"""Slices by history length, each with its shortest length, in interactions of all domains."""
USER = ("no history", "none in the target", "known in the target")
ITEM = ("never sold", "sold elsewhere only", "sold in the target")
DECILES = ("1 least bought", *(str(i) for i in range(2, 10)), "10 most bought")
SLICE_ORDER: Mapping[str, tuple[str, ...]] = {
    "user": USER,
    "item": ITEM,
    "history": tuple(HISTORY),
    "popularity": DECILES,
}
"""The order of slices in tables; those by domain and period are sorted by name."""
MAX_MONTHS = 24
"""Rows that span more months than this are grouped by year."""


class RowOrigin(NamedTuple):
    """Time and domain of the evaluation rows, (m,) each.

    Attributes:
        time: seconds since 1970; 0 if unknown.
        domain: the code of the domain; -1 if unknown.
    """

    time: Longs
    domain: Ints


def find_eval_rows(dataset: Dataset, task: Task, role: int = TEST) -> RowOrigin:
    """Look up the task's rows among the target's held-out interactions.

    If a pair was held out twice, the earlier interaction is used. Rows from a file are not among
    the interactions: their time is unknown, and their domain is the item's.
    """
    log = dataset.interactions
    held_out = log.select(task.in_target(log) & (dataset.split.role == role))
    order = np.lexsort((held_out.position, held_out.time))
    held_out_pair = held_out.user[order].astype(np.int64) * task.n_items + held_out.item[order]
    pair, first = np.unique(held_out_pair, return_index=True)
    eval_pair = task.rows.user.astype(np.int64) * task.n_items + task.rows.item
    in_log = np.isin(eval_pair, pair)
    source_row = order[first[np.searchsorted(pair, eval_pair)[in_log]]]

    item_domain = dataset.item_domain[task.rows.item]
    domain = np.where(np.isin(item_domain, task.target), item_domain, -1).astype(np.int32)
    time = np.zeros(len(eval_pair), np.int64)
    time[in_log], domain[in_log] = held_out.time[source_row], held_out.domain[source_row]
    return RowOrigin(time, domain)


def slice_rows(dataset: Dataset, task: Task) -> dict[str, SliceLabels]:
    """Return the labels (m,) of the test rows by kind of slice.

    The kinds are user, item, history, popularity (deciles of the candidates by buyers in the
    target), domain (if the target has several) and period (if any time is known).
    """
    rows, origin = task.rows, find_eval_rows(dataset, task)
    labels = {
        "user": _user_labels(task),
        "item": _item_labels(task),
        "history": _history_labels(task),
        "popularity": np.array(DECILES)[_decile(popularity(task))[task.column[rows.item]]],
    }
    if len(task.target) > 1:
        labels["domain"] = np.array([*dataset.domains, UNKNOWN])[origin.domain]
    if origin.time.any():
        labels["period"] = _period_labels(origin.time)
    return labels


def _user_labels(task: Task) -> SliceLabels:
    in_target = task.history.user[task.in_target(task.history)]
    users = task.rows.user
    has_history = np.bincount(task.history.user, minlength=task.n_users)[users] > 0
    known_in_target = np.bincount(in_target, minlength=task.n_users)[users] > 0
    return np.array(USER)[np.where(known_in_target, 2, has_history)]


def _item_labels(task: Task) -> SliceLabels:
    in_target = task.train.item[task.in_target(task.train)]
    items = task.rows.item
    sold = np.bincount(task.train.item, minlength=task.n_items)[items] > 0
    sold_in_target = np.bincount(in_target, minlength=task.n_items)[items] > 0
    return np.array(ITEM)[np.where(sold_in_target, 2, sold)]


def _history_labels(task: Task) -> SliceLabels:
    length = np.bincount(task.history.user, minlength=task.n_users)[task.rows.user]
    interval = np.searchsorted(tuple(HISTORY.values()), length, side="right") - 1
    return np.array(tuple(HISTORY))[interval]


def _decile(buyers: Floats) -> Longs:
    """Return the decile of each candidate, 0 for the least bought.

    Candidates with the same number of buyers share the decile of their middle rank.
    """
    ordered = np.sort(buyers)
    below = np.searchsorted(ordered, buyers)
    not_above = np.searchsorted(ordered, buyers, side="right")
    return ((below + not_above) * 5 // len(buyers)).astype(np.int64).clip(0, 9)


def _period_labels(time: Longs) -> SliceLabels:
    """Label by month, by week if all is within one month, or by year if there are many months."""
    stamps = time.astype("datetime64[s]")
    months = len(np.unique(stamps[time != 0].astype("datetime64[M]")))
    if months < 2:
        days = stamps.astype("datetime64[D]")
        monday = days - (days.astype(np.int64) + 3) % 7  # 1970 began on a Thursday
        names = np.char.add("week of ", monday.astype(str))
    else:
        unit = "datetime64[M]" if months <= MAX_MONTHS else "datetime64[Y]"
        names = stamps.astype(unit).astype(str)
    return np.where(time != 0, names, UNKNOWN)


class RankedModel(NamedTuple):
    """A model's name and the ranks (m,) it gave the positives."""

    name: str
    rank: Doubles


def slice_table(
    slices: Mapping[str, SliceLabels], user: Ints, model: RankedModel, over: RankedModel
) -> list[dict[str, Any]]:
    """Return one row per slice that is not empty: its size, both models' figures and their lift."""
    return [
        _slice_row(kind, name, labels == name, user, model, over)
        for kind, labels in slices.items()
        for name in _names_in_order(kind, labels)
    ]


def _names_in_order(kind: str, labels: SliceLabels) -> Iterator[str]:
    present = np.unique(labels).tolist()
    return (name for name in SLICE_ORDER.get(kind, sorted(present)) if name in present)


def _slice_row(
    kind: str,
    name: str,
    in_slice: NDArray[np.bool_],
    user: Ints,
    model: RankedModel,
    over: RankedModel,
) -> dict[str, Any]:
    slice_user = user[in_slice]
    users = len(np.unique(slice_user))
    row: dict[str, Any] = {"by": kind, "slice": name, "tests": int(in_slice.sum()), "users": users}
    ndcg: dict[str, Doubles] = {}
    for ranked, prefix in ((model, ""), (over, "over.")):
        rank = ranked.rank[in_slice]
        ndcg[prefix] = METRICS["ndcg"](rank, 10)
        estimate = clustered_mean(ndcg[prefix], slice_user)
        row |= nan_to_none(
            {
                f"{prefix}ndcg@10": estimate.mean,
                f"{prefix}ndcg@10.se": estimate.se,
                f"{prefix}recall@10": float(METRICS["hr"](rank, 10).mean()),
            }
        )
    paired = paired_lift(ndcg[""], ndcg["over."], slice_user)
    lift = lift_json(model.name, over.name, paired)
    if users < MIN_USERS:
        lift["verdict"] = "too few users"
    return {**row, "lift": lift}
