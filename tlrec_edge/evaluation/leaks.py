"""Refuse to measure a model on what it, or a choice, could have seen; cheap enough to run with every evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import TEST, VALID, Dataset, Interactions
from tlrec_edge.data.task import BY_USER, Task, Tasks
from tlrec_edge.errors import LeakError
from tlrec_edge.evaluation.slices import find_eval_rows
from tlrec_edge.train.provenance import Provenance


def check_tasks(dataset: Dataset, tasks: Tasks) -> None:
    """Raise LeakError where the tasks break what their split promises.

    No held-out row is learned from or known; where known pairs are masked, no asked pair is; and but for test rows from
    a file, nothing that an asked user did after the question. It names the first offending row and how many there are.
    """
    for task, log, where, kind, role in (
        (tasks.final, tasks.final.train, "the training part", "test", TEST),
        (tasks.final, tasks.final.history, "the history", "test", TEST),
        (tasks.final, tasks.choose.train, "what choices were fitted on", "test", TEST),
        (tasks.choose, tasks.choose.train, "what choices were fitted on", "validation", VALID),
        (tasks.choose, tasks.choose.history, "the history of choices", "validation", VALID),
    ):
        held_out = dataset.interactions.position[dataset.split.role == role]
        _raise_leak(dataset, log, np.isin(log.position, held_out), f"{kind} rows in {where}")
        if _from_file(dataset) and role == TEST:
            continue
        if dataset.split.mask_seen:
            _raise_leak(dataset, log, _query_pairs(log, task), f"{kind} pairs in {where}")
        after = _after(log, _query_time(dataset, task, role))
        _raise_leak(dataset, log, after, f"rows in {where} from after their user's {kind} question")


def check_model(dataset: Dataset, tasks: Tasks, provenance: Provenance) -> None:
    """Raise LeakError if the source, or a model of another fold, learned from the asked users' rows in the target."""
    log, split, final = dataset.interactions, dataset.split, tasks.final
    trainable = np.isin(log.domain, final.target) & (split.role != TEST)
    shared = [dataset.domains.index(n) for n in provenance.source or () if n in dataset.domains]
    _raise_leak(
        dataset,
        log,
        trainable & np.isin(log.domain, shared),
        "rows of the target in what the source learned from",
    )
    if split.kind == "new-users":
        fold = provenance.fold
        mine = trainable & np.isin(log.user, final.rows.user)
        mine &= np.ones(len(log), bool) if fold is None else split.fold[log.user] != fold
        in_history = np.isin(log.position, final.history.position)
        _raise_leak(
            dataset,
            log,
            mine & ~in_history,
            "rows of users asked as new in what the model learned from",
        )


def leak_notes(dataset: Dataset, tasks: Tasks, provenance: Provenance) -> list[str]:
    """Say what the split does not promise and is not so: known test pairs from a file, a source that saw later rows."""
    final, log = tasks.final, dataset.interactions
    notes = []
    if _from_file(dataset):
        known = _query_pairs(final.train, final)
        if known.any():
            notes.append(
                f"{_describe(dataset, final.train, known, 'given test pairs in the training part')}: easy hits"
            )
    if dataset.split.kind in BY_USER and provenance.mode != "joint":
        source = [dataset.domains.index(n) for n in provenance.source or () if n in dataset.domains]
        seen = np.isin(log.domain, source) & (dataset.split.role != TEST)
        seen &= _after(log, _query_time(dataset, final, TEST))
        if seen.any():
            notes.append(
                _describe(
                    dataset,
                    log,
                    seen,
                    "rows from after their user's question in what the source learned",
                )
            )
    return notes


def _from_file(dataset: Dataset) -> bool:
    return dataset.split.rows is not None


def _query_pairs(log: Interactions, task: Task) -> NDArray[np.bool_]:
    """Mark the target's rows whose pair is asked."""
    pair = log.user.astype(np.int64) * task.n_items + log.item
    return task.in_target(log) & np.isin(
        pair, task.rows.user.astype(np.int64) * task.n_items + task.rows.item
    )


def _query_time(dataset: Dataset, task: Task, role: int) -> NDArray[np.int64]:
    """Return when each user is first asked, (users,); never where that is unknown."""
    never = np.iinfo(np.int64).max
    when = np.full(task.n_users, never, np.int64)
    time = find_eval_rows(dataset, task, role).time
    np.minimum.at(when, task.rows.user, np.where(time != 0, time, never))
    return when


def _after(log: Interactions, when: NDArray[np.int64]) -> NDArray[np.bool_]:
    later: NDArray[np.bool_] = log.time > when[log.user]
    return later


def _raise_leak(dataset: Dataset, log: Interactions, leaked: NDArray[np.bool_], what: str) -> None:
    if leaked.any():
        raise LeakError(
            f"leak: {_describe(dataset, log, leaked, what)}; nothing measured here would hold"
        )


def _describe(dataset: Dataset, log: Interactions, leaked: NDArray[np.bool_], what: str) -> str:
    first = int(np.flatnonzero(leaked)[0])
    time = str(np.datetime64(int(log.time[first]), "s")) if dataset.has_time else "unknown time"
    user, item = dataset.users[log.user[first]], dataset.items[log.item[first]]
    return f"{int(leaked.sum()):,} {what}, first user {user!r}, item {item!r}, {time}"
