"""Refuse to evaluate on rows that a model, or a choice of hyperparameters, may have been fitted on.

The checks are cheap enough to run with every evaluation.
"""

from __future__ import annotations

import numpy as np

from tlrec_edge.data.dataset import TEST, VALID, Dataset, Interactions
from tlrec_edge.data.task import BY_USER, Task, Tasks
from tlrec_edge.errors import LeakError
from tlrec_edge.evaluation.slices import find_eval_rows
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.types import Bools, Longs


def check_tasks(dataset: Dataset, tasks: Tasks) -> None:
    """Raise LeakError if training rows or histories contain what the split holds out.

    They must not contain a held-out row, a row that is later than its user's held-out row, or, if
    the split masks known pairs, a held-out pair. Only the first is checked for test rows from a
    file. The error names the first such row and their number.
    """
    choose, final = tasks.choose, tasks.final
    for task, log, part, kind, role in (
        (final, final.train, "the training rows", "test", TEST),
        (final, final.history, "the histories", "test", TEST),
        (final, choose.train, "the training rows for validation", "test", TEST),
        (choose, choose.train, "the training rows for validation", "validation", VALID),
        (choose, choose.history, "the histories for validation", "validation", VALID),
    ):
        held_out = dataset.interactions.position[dataset.split.role == role]
        leaked = np.isin(log.position, held_out)
        _raise_if_any(dataset, log, leaked, f"{kind} rows are in {part}")
        if _is_from_file(dataset) and role == TEST:
            continue
        if dataset.split.mask_seen:
            leaked = _is_eval_pair(log, task)
            _raise_if_any(dataset, log, leaked, f"user-item pairs of {kind} rows are in {part}")
        leaked = _is_later(log, _eval_time(dataset, task, role))
        _raise_if_any(
            dataset, log, leaked, f"rows from after their user's {kind} row are in {part}"
        )


def check_model(dataset: Dataset, tasks: Tasks, provenance: Provenance) -> None:
    """Raise LeakError if a model was trained on rows of the target that its test holds out.

    This is so if its source domains include the target. With a split by new users, it is also so if
    the model was adapted to another fold than that of the test users.
    """
    log, split, final = dataset.interactions, dataset.split, tasks.final
    trainable = np.isin(log.domain, final.target) & (split.role != TEST)
    from_source = trainable & np.isin(log.domain, _source_codes(dataset, provenance))
    _raise_if_any(dataset, log, from_source, "rows of the target were used to train the source")
    if split.kind != "new-users":
        return
    other_fold = np.ones(len(log), bool)
    if provenance.fold is not None:
        other_fold = split.fold[log.user] != provenance.fold
    leaked = trainable & np.isin(log.user, final.rows.user) & other_fold
    leaked &= ~np.isin(log.position, final.history.position)
    _raise_if_any(dataset, log, leaked, "rows of the test's new users were used to train the model")


def leak_notes(dataset: Dataset, tasks: Tasks, provenance: Provenance) -> list[str]:
    """Return notes on what the split does not promise, if it is not the case.

    These are test pairs from a file that are in the training rows, and a source that was trained on
    later rows of the test users.
    """
    final, log = tasks.final, dataset.interactions
    notes = []
    if _is_from_file(dataset):
        known = _is_eval_pair(final.train, final)
        if known.any():
            what = "test pairs of the file are in the training rows"
            notes.append(f"{_describe(dataset, final.train, known, what)}: they are easy to rank")
    if dataset.split.kind in BY_USER and provenance.mode != "joint":
        later = np.isin(log.domain, _source_codes(dataset, provenance))
        later &= dataset.split.role != TEST
        later &= _is_later(log, _eval_time(dataset, final, TEST))
        if later.any():
            what = "rows from after their user's test row were used to train the source"
            notes.append(_describe(dataset, log, later, what))
    return notes


def _source_codes(dataset: Dataset, provenance: Provenance) -> list[int]:
    names = provenance.source or ()
    return [dataset.domains.index(name) for name in names if name in dataset.domains]


def _is_from_file(dataset: Dataset) -> bool:
    return dataset.split.rows is not None


def _is_eval_pair(log: Interactions, task: Task) -> Bools:
    """Mark the rows of the target with the user and item of an evaluation row."""
    pair = log.user.astype(np.int64) * task.n_items + log.item
    eval_pair = task.rows.user.astype(np.int64) * task.n_items + task.rows.item
    return task.in_target(log) & np.isin(pair, eval_pair)


def _eval_time(dataset: Dataset, task: Task, role: int) -> Longs:
    """Return the time of each user's first evaluation row, (users,).

    If a user has none, or its time is unknown, it is the largest integer: no row is later.
    """
    end_of_time = np.iinfo(np.int64).max
    first = np.full(task.n_users, end_of_time, np.int64)
    time = find_eval_rows(dataset, task, role).time
    np.minimum.at(first, task.rows.user, np.where(time != 0, time, end_of_time))
    return first


def _is_later(log: Interactions, user_time: Longs) -> Bools:
    later: Bools = log.time > user_time[log.user]
    return later


def _raise_if_any(dataset: Dataset, log: Interactions, leaked: Bools, what: str) -> None:
    if leaked.any():
        raise LeakError(
            f"leak: {_describe(dataset, log, leaked, what)}; "
            "figures measured with them would be meaningless"
        )


def _describe(dataset: Dataset, log: Interactions, rows: Bools, what: str) -> str:
    first = int(np.flatnonzero(rows)[0])
    time = str(np.datetime64(int(log.time[first]), "s")) if dataset.has_time else "unknown time"
    user, item = dataset.users[log.user[first]], dataset.items[log.item[first]]
    return f"{int(rows.sum()):,} {what} (first: user {user!r}, item {item!r}, {time})"
