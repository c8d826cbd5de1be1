"""From a dataset to a ranking task: what may be learned from, whose past is known, what is asked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset, EvalRows, Interactions
from tlrec_edge.data.parse import sort_ids
from tlrec_edge.errors import DataError
from tlrec_edge.types import Bools, Ints


@dataclass(frozen=True)
class Task:
    """One ranking task in one target.

    ``train`` may be learned from; ``history`` is what the asked users did before the question. Both are sorted by user
    and time and hold the domains of the source as well. ``candidates`` are the item rows that compete. ``dropped``
    counts the held-out rows that are no question, by reason.
    """

    domains: tuple[str, ...]
    target: Ints
    train: Interactions
    history: Interactions
    rows: EvalRows
    candidates: Ints
    mask_seen: bool
    n_users: int
    n_items: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def column(self) -> Ints:
        """Map an item row to its candidate column, -1 where it is no candidate. Shape (n_items,)."""
        column = np.full(self.n_items, -1, np.int32)
        column[self.candidates] = np.arange(len(self.candidates), dtype=np.int32)
        return column

    def in_target(self, log: Interactions) -> Bools:
        return np.isin(log.domain, self.target)

    def target_only(self) -> Task:
        """Return the same questions with everything outside the target's domains forgotten."""
        return replace(
            self,
            train=self.train.select(self.in_target(self.train)),
            history=self.history.select(self.in_target(self.history)),
        )


@dataclass(frozen=True)
class Tasks:
    """``choose`` is for choices (fitted without the validation rows), ``final`` for the model and its test."""

    choose: Task
    final: Task


def make_tasks(dataset: Dataset, domains: tuple[str, ...], fold: int | None = None) -> Tasks:
    """Build the tasks of one target.

    With ``fold`` (split ``new-users``) that fold's users are new to the target: their past there is removed, and their
    test pairs are asked. The next fold plays the same part for validation, where all their pairs before the test are
    asked, so that choices rest on more users than one short period has. Without it, the users keep their past and pairs
    bought before are not asked again. Where a split holds out a user's last rows, nothing the user did later, in any
    domain, is learned from or known.
    """
    split, log = dataset.split, dataset.interactions
    target = dataset.domain_codes(domains)
    if fold is not None and not 0 <= fold < split.folds:
        raise DataError(
            f"fold {fold} does not exist: the split '{split.kind}' has {split.folds} folds"
        )
    past = split.role != TEST
    candidates = _candidates(dataset, target, past)
    if not len(candidates):
        raise DataError(f"domain {', '.join(domains)} has no candidate item before the test period")
    in_target = np.isin(log.domain, target)
    validation_fold = None if fold is None else (fold + 1) % split.folds

    def build(
        seen: Bools, role: int, hidden_folds: tuple[int | None, ...], test_fold: int | None
    ) -> Task:
        hidden = in_target & np.isin(
            split.fold[log.user], [f for f in hidden_folds if f is not None]
        )
        if split.kind in BY_USER:
            hidden |= log.time > query_time(dataset, in_target & (split.role == role))[log.user]
        history = seen & ~hidden
        train = history if split.refit or role == VALID else (split.role == TRAIN) & ~hidden
        task = Task(
            domains,
            target,
            log.select(train),
            log.select(history),
            empty_eval_rows(),
            candidates,
            split.mask_seen,
            len(dataset.users),
            len(dataset.items),
        )
        if role == TEST and split.rows is not None:
            return replace(task, rows=split.rows)
        seen_before = history if fold is None and split.mask_seen else np.zeros(len(log), bool)
        # Users new to the target have no past there to respect: all of it before the test can be asked for validation.
        period = past if fold is not None and role == VALID else split.role == role
        rows, dropped = _make_eval_rows(
            task, log.select(in_target & period), log.select(in_target & seen_before), dataset
        )
        if test_fold is not None:
            rows = rows.select(split.fold[rows.user] == test_fold)
            dropped = {
                reason: users[split.fold[users] == test_fold] for reason, users in dropped.items()
            }
        return replace(
            task,
            rows=rows,
            dropped={reason: len(users) for reason, users in dropped.items() if len(users)},
        )

    hidden_folds = (fold, validation_fold)
    return Tasks(
        choose=build(split.role == TRAIN, VALID, hidden_folds, validation_fold),
        final=build(past, TEST, (fold,), fold),
    )


BY_USER = ("leave-one-out", "last-basket", "given")
"""Splits that hold out each user's last rows in the target: what a user did elsewhere after that is not known yet."""


def query_time(dataset: Dataset, queried: Bools) -> NDArray[np.int64]:
    """Return when each user is asked, (users,): the first of the asked rows, or never."""
    when = np.full(len(dataset.users), np.iinfo(np.int64).max, np.int64)
    np.minimum.at(when, dataset.interactions.user[queried], dataset.interactions.time[queried])
    return when


def empty_eval_rows() -> EvalRows:
    """Return the empty set of questions."""
    none = np.empty(0, np.int32)
    return EvalRows(none, none, np.empty((0, 0), np.int32))


def _candidates(dataset: Dataset, target: Ints, past: Bools) -> Ints:
    """Items bought in the target by at least ``min_buyers`` users, its own unsold items, and items of given rows.

    Unsold are those of its own that nobody bought there, and those without a home that nobody bought anywhere.
    """
    split, log = dataset.split, dataset.interactions
    minimum = int(split.settings.get("min_buyers", 0))
    in_target = past & np.isin(log.domain, target)
    pairs = np.unique(_pairs(log.select(in_target), len(dataset.items)))
    buyers = np.bincount(pairs % len(dataset.items), minlength=len(dataset.items))
    keep = buyers >= max(minimum, 1)
    if not minimum:
        sold = np.bincount(log.item[past], minlength=len(dataset.items)) > 0
        keep |= np.isin(dataset.item_domain, target) | (~sold & (dataset.item_domain < 0))
    if split.rows is not None:
        named = np.concatenate([split.rows.item, split.rows.negatives.ravel()])
        keep[named[named >= 0]] = True
    return np.flatnonzero(keep).astype(np.int32)


REPEATED, NO_CANDIDATE, KNOWN = (
    "repeated pair",
    "too few buyers of the item before the test",
    "pair known before",
)
"""Why a held-out row is no question: one counts for the first reason that hits it."""


def _make_eval_rows(
    task: Task, held_out: Interactions, seen: Interactions, dataset: Dataset
) -> tuple[EvalRows, dict[str, NDArray[np.int64]]]:
    """Ask each distinct pair once, in order of time, unless seen before, beside negatives without a positive.

    Also return the users of the rows that are not asked, by reason.
    Negatives are drawn in one stream over the questions of all folds, so a question meets the same ones in any fold.
    """
    order = np.lexsort((held_out.position, held_out.time))
    pair = _pairs(held_out, task.n_items)[order]
    before = _pairs(seen, task.n_items)
    first = np.sort(np.unique(pair, return_index=True)[1])
    repeated, pair = np.delete(pair, first), pair[first]
    user, item = np.divmod(pair, task.n_items)
    known = np.isin(pair, before)
    not_candidate = ~known & (task.column[item] < 0)
    dropped = {
        REPEATED: repeated // task.n_items,
        NO_CANDIDATE: user[not_candidate],
        KNOWN: user[known],
    }
    keep = ~(not_candidate | known)
    user, item = user[keep], item[keep]
    negatives = _sample(user, np.concatenate([pair[keep], before]), task, dataset)
    return EvalRows(user.astype(np.int32), item.astype(np.int32), negatives), dropped


def _pairs(log: Interactions, n_items: int) -> NDArray[np.int64]:
    return log.user.astype(np.int64) * n_items + log.item


def _sample(
    user: NDArray[np.int64], excluded: NDArray[np.int64], task: Task, dataset: Dataset
) -> Ints:
    """Draw ``split.negatives`` candidates a row with ``random.Random(seed).sample`` over the sorted candidates."""
    split, count = dataset.split, dataset.split.negatives
    if not count:
        return np.empty((len(user), 0), np.int32)
    ordered = task.candidates[sort_ids([dataset.items[row] for row in task.candidates])]
    place = np.full(task.n_items, -1, np.int64)
    place[ordered] = np.arange(len(ordered))
    excluded_user, excluded_item = np.divmod(np.unique(excluded), task.n_items)
    excluded_user, excluded_place = (
        excluded_user[place[excluded_item] >= 0],
        place[excluded_item][place[excluded_item] >= 0],
    )
    bounds = np.searchsorted(excluded_user, np.arange(task.n_users + 1))
    rng = random.Random(split.seed)
    result = np.full((len(user), count), -1, np.int32)
    for i, u in enumerate(user.tolist()):
        excluded_places = np.sort(excluded_place[bounds[u] : bounds[u + 1]])
        free = len(ordered) - len(excluded_places)
        drawn = np.array(rng.sample(range(free), min(count, free)), np.int64)
        skipped = np.searchsorted(
            excluded_places - np.arange(len(excluded_places)), drawn, side="right"
        )
        result[i, : len(drawn)] = ordered[drawn + skipped]
    return result
