"""Every kind of leak is refused by evaluate; tasks made by the package have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from helpers import synthetic
from tlrec_edge.data.dataset import TEST, VALID, Dataset, Interactions
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.errors import LeakError
from tlrec_edge.evaluation import evaluate
from tlrec_edge.evaluation.evaluate import baseline_rankers, model_ranker
from tlrec_edge.evaluation.leaks import check_model, check_tasks, leak_notes
from tlrec_edge.train.provenance import Provenance


def append(log: Interactions, rows: Interactions) -> Interactions:
    columns = [
        np.concatenate([getattr(log, name), getattr(rows, name)])
        for name in log.__dataclass_fields__
    ]
    order = np.lexsort((columns[list(log.__dataclass_fields__).index("time")], columns[0]))
    return Interactions(*(column[order] for column in columns))


def held_out(data: Dataset, role: int) -> Interactions:
    log = data.interactions
    return log.select((data.split.role == role) & (log.domain == data.domains.index("small")))


def as_other_rows(rows: Interactions, later: int = 0) -> Interactions:
    """Return the rows as other rows of the log: new positions, ``later`` seconds after."""
    return replace(rows, position=rows.position + 10**6, time=rows.time + later)


def elsewhere(rows: Interactions) -> Interactions:
    return replace(rows, domain=np.zeros_like(rows.domain), item=np.zeros_like(rows.item))


def with_rows(task: Task, part: str, rows: Interactions) -> Task:
    changed = append(getattr(task, part), rows)
    return replace(task, train=changed) if part == "train" else replace(task, history=changed)


Change = Callable[[Interactions], Interactions]
LEAKS: dict[str, tuple[str, str, int, Change]] = {
    "test rows are in the training rows": ("final", "train", TEST, lambda rows: rows),
    "test rows are in the histories": ("final", "history", TEST, lambda rows: rows),
    "user-item pairs of test rows are in the training rows": (
        "final",
        "train",
        TEST,
        as_other_rows,
    ),
    "rows from after their user's test row are in the histories": (
        "final",
        "history",
        TEST,
        lambda rows: elsewhere(as_other_rows(rows, 1)),
    ),
    "test rows are in the training rows for validation": (
        "choose",
        "train",
        TEST,
        lambda rows: rows,
    ),
    "validation rows are in the training rows for validation": (
        "choose",
        "train",
        VALID,
        lambda rows: rows,
    ),
}
"""Leak -> the task and part that get three held-out rows of a role, and the change to the rows."""


def with_leak(data: Dataset, leak: str) -> Tasks:
    name, part, role, change = LEAKS[leak]
    tasks = make_tasks(data, ("small",))
    rows = change(held_out(data, role).select(np.arange(3)))
    return replace(tasks, **{name: with_rows(getattr(tasks, name), part, rows)})


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_refused_with_its_first_row(what: str) -> None:
    data = synthetic.dataset()
    tasks = with_leak(data, what)
    with pytest.raises(LeakError) as error:
        evaluate(data, ("small",), baseline_rankers(None, data), tasks=tasks)
    message = str(error.value)
    role = VALID if what.startswith("validation") else TEST
    first = held_out(data, role)
    assert message.startswith(f"leak: 3 {what} (first: user {data.users[first.user[0]]!r}, item ")
    assert str(np.datetime64(int(first.time[0]), "s"))[:10] in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "fold"),
    [
        ("leave-one-out", None),
        ("last-basket", None),
        ("time", None),
        ("new-users", None),
        ("new-users", 2),
        ("given", None),
    ],
)
def test_made_tasks_have_no_leak(kind: str, fold: int | None) -> None:
    data = synthetic.dataset(kind)
    check_tasks(data, make_tasks(data, ("small",), fold))


def test_data_without_times_are_checked_for_rows_and_pairs() -> None:
    data = synthetic.ids_only()
    tasks = make_tasks(data, ("all",))
    check_tasks(data, tasks)
    rows = data.interactions.select(data.split.role == TEST).select(np.arange(1))
    bad = replace(
        tasks, final=replace(tasks.final, train=append(tasks.final.train, as_other_rows(rows)))
    )
    with pytest.raises(
        LeakError,
        match=r"1 user-item pairs of test rows are in the training rows \(.*, unknown time\);",
    ):
        check_tasks(data, bad)


def test_a_source_trained_on_the_target_is_refused() -> None:
    data = synthetic.dataset()
    model = synthetic.model().with_provenance(source=("big", "small"))
    with pytest.raises(
        LeakError,
        match=r"rows of the target were used to train the source \(first: user 'u0', item 's",
    ):
        evaluate(data, ("small",), {"model": model_ranker(model, data)})


@pytest.mark.parametrize("fold", [None, 1])
def test_a_model_of_another_fold_is_refused(fold: int | None) -> None:
    data = synthetic.dataset("new-users")
    with pytest.raises(
        LeakError, match="rows of the test's new users were used to train the model"
    ):
        check_model(data, make_tasks(data, ("small",), 2), Provenance(fold=fold))
    check_model(data, make_tasks(data, ("small",), 2), Provenance(fold=2))
    check_model(data, make_tasks(data, ("small",)), Provenance(fold=fold))


def test_notes_name_what_the_split_does_not_promise() -> None:
    data = synthetic.dataset("given")
    tasks = make_tasks(data, ("small",))
    assert not leak_notes(data, tasks, Provenance())
    rows = held_out(data, 0).select(np.arange(2))
    eval_rows = replace(
        tasks.final.rows, user=rows.user, item=rows.item, negatives=tasks.final.rows.negatives[:2]
    )
    known = replace(tasks, final=replace(tasks.final, rows=eval_rows))
    check_tasks(data, known)
    assert leak_notes(data, known, Provenance())[0].startswith(
        "2 test pairs of the file are in the training rows (first: user"
    )
    leave_one_out = synthetic.dataset()
    notes = leak_notes(
        leave_one_out,
        make_tasks(leave_one_out, ("small",)),
        Provenance(source=("big",), mode="finetune"),
    )
    assert "rows from after their user's test row were used to train the source (first" in notes[0]
    assert not leak_notes(
        leave_one_out,
        make_tasks(leave_one_out, ("small",)),
        Provenance(source=("big",), mode="joint"),
    )
