"""From a dataset to a ranking task: training data, histories, evaluation rows, candidates."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tlrec_edge.core.result_cache import ResultCache, content_key
from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset, EvalRows, Interactions, Split
from tlrec_edge.data.like_test import MIN_ROWS, NegativesPool, items_of, match_lengths, sample_like
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import sort_ids
from tlrec_edge.types import Bools, Ints, Longs

BY_USER = ("leave-one-out", "last-basket", "given")
"""Splits that hold out each user's last rows in the target.

Everything that the user did later, in any domain, is removed from the task.
"""
REPEATED = "repeated pair"
NO_CANDIDATE = "too few buyers of the item before the test"
KNOWN = "pair known before"
"""Why a held-out row is not evaluated. A row counts for the first reason that applies."""
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Task:
    """One ranking task in one target.

    Attributes:
        domains: names of the target's domains.
        target: codes of the target's domains.
        train: the training data, of all domains, by user and time.
        history: what the users did before their evaluation rows, of all domains, by user and time.
        rows: the evaluation rows.
        candidates: (C,) the item rows that are ranked.
        mask_seen: whether items that the user already had are excluded from the ranking.
        n_users: users of the dataset.
        n_items: items of the dataset.
        dropped: held-out rows that are not evaluated, by reason.
        note: how the rows were drawn like given test rows; "" if they were not.
        cache: a store of results that depend on the task (see ``remember``); None: none are kept.
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
    note: str = ""
    cache: ResultCache | None = None

    @cached_property
    def digest(self) -> str:
        """A hash of the task's content."""
        logs = (
            getattr(log, name)
            for log in (self.train, self.history)
            for name in Interactions.__dataclass_fields__
        )
        rows = (self.rows.user, self.rows.item, self.rows.negatives)
        settings = (self.mask_seen, self.n_users, self.n_items)
        return content_key(*logs, *rows, self.target, self.candidates, *settings)

    @cached_property
    def column(self) -> Ints:
        """Index of each item among the candidates, -1 for other items. Shape (n_items,)."""
        column = np.full(self.n_items, -1, np.int32)
        column[self.candidates] = np.arange(len(self.candidates), dtype=np.int32)
        return column

    def in_target(self, log: Interactions) -> Bools:
        """Mark the interactions in the target's domains."""
        return np.isin(log.domain, self.target)

    def trains_on(self, rows: EvalRows) -> Bools:
        """Return which pairs of evaluation rows are training data in the target, (m,)."""
        evaluated = np.zeros(self.n_users, bool)
        evaluated[rows.user] = True
        log = self.train.select(self.in_target(self.train) & evaluated[self.train.user])
        pairs = rows.user.astype(np.int64) * self.n_items + rows.item
        return np.isin(pairs, _pairs(log, self.n_items))

    def target_only(self) -> Task:
        """Return the same task without any interaction outside the target."""
        return replace(
            self,
            train=self.train.select(self.in_target(self.train)),
            history=self.history.select(self.in_target(self.history)),
        )


@dataclass(frozen=True)
class Tasks:
    """The two tasks of one target.

    Attributes:
        choose: the validation task, for all choices; no model is fitted on its rows.
        final: the test task, for the final model.
    """

    choose: Task
    final: Task

    @property
    def final_learns_validation(self) -> bool:
        """Whether the final task trains on validation rows, which the other task does not."""
        rows = self.choose.rows
        learned = self.final.trains_on(rows) & ~self.choose.trains_on(rows)
        return bool(learned.any())

    def target_only(self) -> Tasks:
        """Return the same tasks without any interaction outside the target."""
        return Tasks(self.choose.target_only(), self.final.target_only())


def make_tasks(dataset: Dataset, domains: tuple[str, ...], fold: int | None = None) -> Tasks:
    """Build the validation task and the test task of one target.

    Without ``fold``, users keep their history in the target, and pairs from it are not evaluated
    again. If the split holds out each user's last rows, everything that the user did later is
    removed from training data and histories, in all domains.

    With ``fold`` (split ``new-users``), the users of that fold are new to the target: their past
    there is removed, and their test rows are evaluated. The users of the next fold have the same
    role in validation. All their rows before the test are evaluated, not only those of the
    validation period, because one short period has too few users to choose by.

    If the dataset has test rows of its own but no validation rows, these are drawn like the test
    rows (see ``like_test``).

    Raises DataError if a domain or the fold does not exist, or if the target has no candidate.
    """
    split = dataset.split
    target = dataset.domain_codes(domains)
    if fold is not None and not 0 <= fold < split.folds:
        raise DataError(
            f"fold {fold} does not exist: the split '{split.kind}' has {split.folds} folds"
        )
    candidates = _candidates(dataset, target)
    if not len(candidates):
        raise DataError(
            f"domain {', '.join(domains)} has no candidate item before the test period; "
            "prepare again with a later --test-from or a smaller --min-buyers"
        )
    builder = _TaskBuilder(dataset, domains, target, candidates)
    if fold is None:
        return _like_test(Tasks(choose=builder.build(VALID), final=builder.build(TEST)), split)
    next_fold = (fold + 1) % split.folds
    tasks = Tasks(
        choose=builder.build(VALID, new_users=(fold, next_fold), evaluated_fold=next_fold),
        final=builder.build(TEST, new_users=(fold,), evaluated_fold=fold),
    )
    return _like_test(tasks, split)


def query_time(dataset: Dataset, is_query: Bools) -> Longs:
    """Return the time of each user's first row in ``is_query``, NEVER if there is none. (users,)"""
    time = np.full(len(dataset.users), NEVER, np.int64)
    np.minimum.at(time, dataset.interactions.user[is_query], dataset.interactions.time[is_query])
    return time


def empty_eval_rows() -> EvalRows:
    """Return an ``EvalRows`` of length 0."""
    none = np.empty(0, np.int32)
    return EvalRows(none, none, np.empty((0, 0), np.int32))


@dataclass(frozen=True)
class _TaskBuilder:
    """Builds the validation task and the test task of one target."""

    dataset: Dataset
    domains: tuple[str, ...]
    target: Ints
    candidates: Ints

    @cached_property
    def in_target(self) -> Bools:
        return np.isin(self.dataset.interactions.domain, self.target)

    def build(
        self, role: int, new_users: tuple[int, ...] = (), evaluated_fold: int | None = None
    ) -> Task:
        """Build the task whose held-out rows have ``role``.

        Users of the folds ``new_users`` are new to the target: their past there is removed. If
        ``evaluated_fold`` is given, only the users of that fold are evaluated.
        """
        split, log = self.dataset.split, self.dataset.interactions
        history = self._known_before(role) & ~self._hidden(role, new_users)
        train = history
        if role == TEST and not split.refit:
            train = history & (split.role == TRAIN)
        task = Task(
            self.domains,
            self.target,
            log.select(train),
            log.select(history),
            empty_eval_rows(),
            self.candidates,
            split.mask_seen,
            len(self.dataset.users),
            len(self.dataset.items),
            cache=self.dataset.cache,
        )
        given = split.rows if role == TEST else split.valid_rows
        if given is not None:
            return replace(task, rows=given.of_domains(self.target))
        # Users who are new to the target have no past there that would have to be left out.
        respects_past = evaluated_fold is None and split.mask_seen
        seen = history if respects_past else np.zeros(len(log), bool)
        held_out = log.select(self.in_target & self._held_out(role, evaluated_fold))
        # Negatives like those of given test rows are drawn later.
        n_negatives = split.negatives if split.rows is None else 0
        rows, dropped = _make_eval_rows(
            task, held_out, log.select(self.in_target & seen), self.dataset, n_negatives
        )
        if evaluated_fold is not None:
            rows = rows.select(split.fold[rows.user] == evaluated_fold)
            dropped = {
                reason: users[split.fold[users] == evaluated_fold]
                for reason, users in dropped.items()
            }
        counts = {reason: len(users) for reason, users in dropped.items() if len(users)}
        return replace(task, rows=rows, dropped=counts)

    def _known_before(self, role: int) -> Bools:
        roles = self.dataset.split.role
        known: Bools = roles != TEST if role == TEST else roles == TRAIN
        return known

    def _hidden(self, role: int, new_users: tuple[int, ...]) -> Bools:
        """Mark what must not be known: the past of new users, and what came after a query."""
        split, log = self.dataset.split, self.dataset.interactions
        hidden = self.in_target & np.isin(split.fold[log.user], new_users)
        if split.kind in BY_USER:
            is_query = self.in_target & (split.role == role)
            hidden |= log.time > query_time(self.dataset, is_query)[log.user]
        return hidden

    def _held_out(self, role: int, evaluated_fold: int | None) -> Bools:
        roles = self.dataset.split.role
        is_new_users = role == VALID and evaluated_fold is not None
        held_out: Bools = roles != TEST if is_new_users else roles == role
        return held_out


def _like_test(tasks: Tasks, split: Split) -> Tasks:
    """Draw the validation rows like given test rows, unless they are given too.

    Their negatives are as many and of the same items. If there are enough such rows, their
    positives are items that the test ranks too, and their users' histories are as long.
    """
    choose, final = tasks.choose, tasks.final
    rows, test = choose.rows, final.rows
    if split.rows is None or split.valid_rows is not None or not len(rows) * len(test):
        return tasks
    pool = NegativesPool.of(test, choose.candidates, _owned_pairs(final), final.n_items)
    is_ranked = np.isin(rows.item, items_of(test))
    if pool.is_known and is_ranked.sum() >= min(MIN_ROWS, len(rows) / 2):
        rows = rows.select(is_ranked)
    test_lengths = history_lengths(final, test)
    rows = rows.select(match_lengths(history_lengths(choose, rows), test_lengths, split.seed))
    user = rows.user.astype(np.int64)
    excluded = user * choose.n_items + rows.item
    if split.mask_seen:
        excluded = np.concatenate([excluded, _owned_pairs(choose)])
    rows = replace(rows, negatives=sample_like(user, excluded, pool, choose.n_items, split.seed))
    lengths = history_lengths(choose, rows).sum(1).mean(), test_lengths.sum(1).mean()
    note = (
        f"validation rows: {len(rows):,} of {len(choose.rows):,}, drawn like the {len(test):,} "
        f"test rows: candidates out of {len(pool.items):,} items, histories of {lengths[0]:.1f} "
        f"interactions on average (test {lengths[1]:.1f})"
    )
    return replace(tasks, choose=replace(choose, rows=rows, note=note))


def _owned_pairs(task: Task) -> Longs:
    """Return the distinct pairs of user and item in the histories in the target, ascending."""
    return np.unique(_pairs(task.history.select(task.in_target(task.history)), task.n_items))


def history_lengths(task: Task, rows: EvalRows) -> Longs:
    """Count the interactions before each row, in the target and elsewhere. Shape (m, 2)."""
    in_target = task.in_target(task.history)
    user, n = task.history.user, task.n_users
    counts = [np.bincount(user[part], minlength=n)[rows.user] for part in (in_target, ~in_target)]
    return np.stack(counts, 1)


def _candidates(dataset: Dataset, target: Ints) -> Ints:
    """Return the item rows that are ranked in the target.

    These are the items with at least ``min_buyers`` buyers in the target before the test, and the
    items of given evaluation rows. Without ``min_buyers`` also items of the target that nobody
    bought there yet, and items without a domain that nobody bought anywhere.
    """
    split, log = dataset.split, dataset.interactions
    n_items = len(dataset.items)
    past = split.role != TEST
    min_buyers = int(split.settings.get("min_buyers", 0))
    pairs = np.unique(_pairs(log.select(past & np.isin(log.domain, target)), n_items))
    buyers = np.bincount(pairs % n_items, minlength=n_items)
    keep = buyers >= max(min_buyers, 1)
    if not min_buyers:
        is_sold = np.bincount(log.item[past], minlength=n_items) > 0
        keep |= np.isin(dataset.item_domain, target) | (~is_sold & (dataset.item_domain < 0))
    for rows in (split.rows, split.valid_rows):
        if rows is not None:
            keep[items_of(rows.of_domains(target))] = True
    return np.flatnonzero(keep).astype(np.int32)


def _make_eval_rows(
    task: Task,
    held_out: Interactions,
    seen: Interactions,
    dataset: Dataset,
    n_negatives: int,
) -> tuple[EvalRows, dict[str, Longs]]:
    """Evaluate each distinct held-out pair once, in order of time, unless it was seen before.

    Also return the users of the rows that are not evaluated, by reason. Negatives are drawn in one
    stream over the rows of all folds, so that a row has the same ones in any fold.
    """
    order = np.lexsort((held_out.position, held_out.time))
    pair = _pairs(held_out, task.n_items)[order]
    seen_pairs = _pairs(seen, task.n_items)
    first = np.sort(np.unique(pair, return_index=True)[1])
    repeated, pair = np.delete(pair, first), pair[first]
    user, item = np.divmod(pair, task.n_items)
    is_known = np.isin(pair, seen_pairs)
    is_no_candidate = ~is_known & (task.column[item] < 0)
    dropped = {
        REPEATED: repeated // task.n_items,
        NO_CANDIDATE: user[is_no_candidate],
        KNOWN: user[is_known],
    }
    keep = ~(is_no_candidate | is_known)
    excluded = np.concatenate([pair[keep], seen_pairs])
    negatives = _sample_negatives(user[keep], excluded, task, dataset, n_negatives)
    rows = EvalRows(user[keep].astype(np.int32), item[keep].astype(np.int32), negatives)
    return rows, dropped


def _pairs(log: Interactions, n_items: int) -> Longs:
    return log.user.astype(np.int64) * n_items + log.item


def _sample_negatives(
    user: Longs, excluded: Longs, task: Task, dataset: Dataset, count: int
) -> Ints:
    """Draw ``count`` candidates per row that are not among the user's ``excluded`` pairs.

    The published rule: ``random.Random(seed).sample`` over the candidates in the order of their
    ids, without those that are excluded. Instead of listing the free candidates for each row, ranks
    among them are drawn and shifted past the excluded ones.
    """
    count = min(count, len(task.candidates))
    if not count:
        return np.empty((len(user), 0), np.int32)
    ordered = task.candidates[sort_ids([dataset.items[row] for row in task.candidates])]
    index_of = np.full(task.n_items, -1, np.int64)
    index_of[ordered] = np.arange(len(ordered))
    excluded_user, excluded_item = np.divmod(np.unique(excluded), task.n_items)
    is_candidate = index_of[excluded_item] >= 0
    excluded_user = excluded_user[is_candidate]
    excluded_index = index_of[excluded_item[is_candidate]]
    bounds = np.searchsorted(excluded_user, np.arange(task.n_users + 1))
    rng = random.Random(dataset.split.seed)
    negatives = np.full((len(user), count), -1, np.int32)
    for row, u in enumerate(user.tolist()):
        taken = np.sort(excluded_index[bounds[u] : bounds[u + 1]])
        n_free = len(ordered) - len(taken)
        drawn = np.array(rng.sample(range(n_free), min(count, n_free)), np.int64)
        # taken[i] - i free candidates come before the i-th excluded one.
        shift = np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
        negatives[row, : len(drawn)] = ordered[drawn + shift]
    return negatives
