"""Tasks under every split: training data, histories, evaluation rows and candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import synthetic
from helpers.synthetic import pairs
from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset
from tlrec_edge.data.task import KNOWN, NO_CANDIDATE, REPEATED, Task, make_tasks
from tlrec_edge.errors import DataError

KINDS = [
    ("leave-one-out", None),
    ("last-basket", None),
    ("time", None),
    ("new-users", 0),
    ("new-users", 3),
    ("given", None),
]
each_kind = pytest.mark.parametrize(("kind", "fold"), KINDS)


def both(kind: str, fold: int | None) -> list[Task]:
    tasks = make_tasks(synthetic.dataset(kind), ("small",), fold)
    return [tasks.choose, tasks.final]


def evaluated(task: Task) -> set[tuple[int, int]]:
    return set(zip(task.rows.user.tolist(), task.rows.item.tolist(), strict=True))


@each_kind
def test_no_evaluated_pair_is_in_training_or_history(kind: str, fold: int | None) -> None:
    choose, final = both(kind, fold)
    for task in (choose, final):
        assert len(task.rows)
        assert not evaluated(task) & pairs(task, "train")
        assert not evaluated(task) & pairs(task, "history")
    # Test pairs must not have helped to choose either.
    assert not evaluated(final) & pairs(choose, "train")


@each_kind
def test_negatives_are_candidates_and_no_positives(kind: str, fold: int | None) -> None:
    for task in both(kind, fold):
        negatives, valid = task.rows.negatives, task.rows.negatives >= 0
        assert valid.any(1).all()
        assert (task.column[negatives[valid]] >= 0).all()
        assert (task.column[task.rows.item] >= 0).all()
        known = evaluated(task) | (pairs(task, "history") if fold is None else set())
        met = {
            (user, item)
            for user, row in zip(task.rows.user.tolist(), negatives.tolist(), strict=True)
            for item in row
            if item >= 0
        }
        assert kind == "given" or not met & known
        assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in negatives)


@each_kind
def test_history_is_what_came_before(kind: str, fold: int | None) -> None:
    data = synthetic.dataset(kind)
    choose, final = both(kind, fold)
    known = data.interactions.select(data.split.role == TRAIN)
    assert len(choose.history) <= len(known)
    assert not np.isin(
        choose.history.position, data.interactions.position[data.split.role != TRAIN]
    ).any()
    assert not np.isin(
        final.history.position, data.interactions.position[data.split.role == TEST]
    ).any()


@pytest.mark.parametrize("kind", ["leave-one-out", "last-basket"])
def test_what_a_user_did_after_the_query_is_neither_known_nor_learned(kind: str) -> None:
    data = synthetic.dataset(kind)
    log = data.interactions
    held = (data.split.role == TEST) & (log.domain == data.domains.index("small"))
    when = dict(zip(log.user[held].tolist(), log.time[held].tolist(), strict=True))
    later = [log.time[i] > when.get(user, np.inf) for i, user in enumerate(log.user.tolist())]
    assert any(later)
    task = make_tasks(data, ("small",)).final
    for seen in (task.history, task.train):
        assert not np.isin(log.position[later], seen.position).any()


def test_without_refit_the_final_model_learns_from_no_validation_row() -> None:
    data = synthetic.dataset()
    small = data.interactions.domain == data.domains.index("small")
    valid = data.interactions.position[(data.split.role == VALID) & small]
    for refit in (True, False):
        task = make_tasks(replace(data, split=replace(data.split, refit=refit)), ("small",)).final
        assert np.isin(valid, task.train.position).all() == refit
        assert np.isin(valid, task.history.position).all()


@pytest.mark.parametrize("fold", range(4))
def test_a_fold_loses_its_past_in_the_target_and_nothing_else(fold: int) -> None:
    data = synthetic.dataset("new-users")
    log, split = data.interactions, data.split
    final = make_tasks(data, ("small",), fold).final
    inside = log.domain == data.domains.index("small")
    mine = split.fold[log.user] == fold
    expected = log.position[(split.role != TEST) & ~(inside & mine)]
    np.testing.assert_array_equal(np.sort(final.train.position), np.sort(expected))
    np.testing.assert_array_equal(np.sort(final.history.position), np.sort(expected))
    assert (split.fold[final.rows.user] == fold).all()


def test_folds_evaluate_every_pair_once_with_the_same_negatives() -> None:
    data = synthetic.dataset("new-users")
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    for fold in range(data.split.folds):
        rows = make_tasks(data, ("small",), fold).final.rows
        for user, item, negatives in zip(rows.user, rows.item, rows.negatives, strict=True):
            assert found.setdefault((user, item), tuple(negatives)) == tuple(negatives)
    log, inside = data.interactions, data.interactions.domain == data.domains.index("small")
    test = log.select(inside & (data.split.role == TEST))
    sold = set(make_tasks(data, ("small",), 0).final.candidates.tolist())
    expected = {
        pair for pair in zip(test.user.tolist(), test.item.tolist(), strict=True) if pair[1] in sold
    }
    assert set(found) == expected


def test_validation_of_new_users_holds_out_another_fold() -> None:
    data = synthetic.dataset("new-users")
    choose = make_tasks(data, ("small",), 3).choose
    assert set(data.split.fold[choose.rows.user]) == {0}
    assert not set(data.split.fold[choose.train.select(choose.in_target(choose.train)).user]) & {
        0,
        3,
    }


def test_unsold_items_are_candidates_unless_min_buyers_is_set() -> None:
    data = synthetic.dataset()
    sold = np.unique(data.interactions.item[data.split.role != TEST])
    every = make_tasks(data, ("small",)).final.candidates
    never = np.setdiff1d(
        np.flatnonzero(data.item_domain == data.domains.index("small")), data.interactions.item
    )
    assert len(never) == synthetic.NEVER_SOLD
    assert np.isin(never, every).all()
    strict = replace(data.split, settings={"min_buyers": 3})
    few = make_tasks(replace(data, split=strict), ("small",)).final
    assert np.isin(few.candidates, sold).all()
    log = data.interactions.select(
        (data.split.role != TEST) & (data.interactions.domain == data.domains.index("small"))
    )
    buyers = [len(np.unique(log.user[log.item == item])) for item in few.candidates]
    assert min(buyers) >= 3
    assert len(few.candidates) < len(every)


def test_items_of_given_rows_are_candidates_even_if_unsold() -> None:
    data = synthetic.dataset("given")
    assert data.split.rows is not None
    task = make_tasks(data, ("small",)).final
    assert np.isin(data.split.rows.item, task.candidates).all()
    assert task.rows is data.split.rows


def test_target_only_removes_other_domains_and_keeps_the_evaluation_rows() -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).final
    alone = task.target_only()
    assert alone.in_target(alone.train).all()
    assert alone.in_target(alone.history).all()
    assert alone.rows is task.rows
    assert pairs(alone, "train") == pairs(task, "train")


def test_unknown_domains_and_folds_are_named() -> None:
    data: Dataset = synthetic.dataset()
    with pytest.raises(DataError, match="unknown domain 'smal'; known: big, small"):
        make_tasks(data, ("smal",))
    with pytest.raises(
        DataError, match="fold 0 does not exist: the split 'leave-one-out' has 0 folds"
    ):
        make_tasks(data, ("small",), 0)
    unsold = replace(
        data,
        domains=(*data.domains, "empty"),
        split=replace(data.split, settings={"min_buyers": 1}),
    )
    with pytest.raises(DataError, match="domain empty has no candidate item"):
        make_tasks(unsold, ("empty",))


@each_kind
def test_every_held_out_row_is_evaluated_or_dropped_for_a_reason(
    kind: str, fold: int | None
) -> None:
    data = synthetic.dataset(kind)
    if fold is not None:
        data = replace(
            data, split=replace(data.split, settings={**data.split.settings, "min_buyers": 18})
        )
    final = make_tasks(data, ("small",), fold).final
    if kind == "given":
        assert not final.dropped
        return
    held = data.interactions.select(data.split.role == TEST)
    held = held.select(final.in_target(held))
    if fold is not None:
        held = held.select(data.split.fold[held.user] == fold)
    assert len(final.rows) + sum(final.dropped.values()) == len(held)
    assert final.dropped.get(NO_CANDIDATE, 0) == (final.column[held.item] < 0).sum()
    assert (NO_CANDIDATE in final.dropped) == (fold is not None)


def test_repeated_and_known_pairs_are_counted_separately() -> None:
    data = synthetic.dataset("time")
    log, role = data.interactions, data.split.role
    test = np.flatnonzero((role == TEST) & (log.domain == data.domains.index("small")))
    train = np.flatnonzero((role == TRAIN) & (log.domain == data.domains.index("small")))
    twice = np.concatenate([np.arange(len(log)), test[:3], train[:2]])
    order = np.lexsort((log.time[twice], log.user[twice]))
    role = np.concatenate([role, np.full(5, TEST, role.dtype)])[order]
    changed = replace(
        data, interactions=log.select(twice[order]), split=replace(data.split, role=role)
    )
    final = make_tasks(changed, ("small",)).final
    assert final.dropped == {REPEATED: 3, KNOWN: 2}
