"""Every kind of leak, planted, is refused by evaluate; tasks as they are made hold none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import synthetic
from tlrec_edge.data.dataset import TEST, VALID, Dataset, Interactions
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import LeakError
from tlrec_edge.evaluation import evaluate
from tlrec_edge.evaluation.evaluate import baseline_rankers, model_ranker
from tlrec_edge.evaluation.leaks import check_model, check_tasks, leak_notes
from tlrec_edge.train.provenance import Provenance


def added(log: Interactions, rows: Interactions) -> Interactions:
    columns = [
        np.concatenate([getattr(log, name), getattr(rows, name)])
        for name in log.__dataclass_fields__
    ]
    order = np.lexsort((columns[list(log.__dataclass_fields__).index("time")], columns[0]))
    return Interactions(*(column[order] for column in columns))


def held(data: Dataset, role: int) -> Interactions:
    log = data.interactions
    return log.select((data.split.role == role) & (log.domain == data.domains.index("small")))


def unplaced(rows: Interactions, later: int = 0) -> Interactions:
    """Return the rows as other rows of the log: new positions, ``later`` seconds after."""
    return replace(rows, position=rows.position + 10**6, time=rows.time + later)


def elsewhere(rows: Interactions) -> Interactions:
    return replace(rows, domain=np.zeros_like(rows.domain), item=np.zeros_like(rows.item))


PLANTED = {
    "test rows are in the training rows": lambda d, t: replace(
        t, final=replace(t.final, train=added(t.final.train, held(d, TEST).select(np.arange(3))))
    ),
    "test rows are in the histories": lambda d, t: replace(
        t,
        final=replace(t.final, history=added(t.final.history, held(d, TEST).select(np.arange(3)))),
    ),
    "user-item pairs of test rows are in the training rows": lambda d, t: replace(
        t,
        final=replace(
            t.final, train=added(t.final.train, unplaced(held(d, TEST).select(np.arange(3))))
        ),
    ),
    "rows from after their user's test row are in the histories": lambda d, t: replace(
        t,
        final=replace(
            t.final,
            history=added(
                t.final.history, elsewhere(unplaced(held(d, TEST).select(np.arange(3)), 1))
            ),
        ),
    ),
    "test rows are in the training rows for validation": lambda d, t: replace(
        t, choose=replace(t.choose, train=added(t.choose.train, held(d, TEST).select(np.arange(3))))
    ),
    "validation rows are in the training rows for validation": lambda d, t: replace(
        t,
        choose=replace(t.choose, train=added(t.choose.train, held(d, VALID).select(np.arange(3)))),
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_leak_is_refused_with_its_first_row(what: str) -> None:
    data = synthetic.dataset()
    tasks: Tasks = PLANTED[what](data, make_tasks(data, ("small",)))
    with pytest.raises(LeakError) as error:
        evaluate(data, ("small",), baseline_rankers(None, data), tasks=tasks)
    message = str(error.value)
    role = VALID if what.startswith("validation") else TEST
    first = held(data, role)
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
def test_tasks_as_they_are_made_hold_none(kind: str, fold: int | None) -> None:
    data = synthetic.dataset(kind)
    check_tasks(data, make_tasks(data, ("small",), fold))


def test_data_without_time_are_checked_for_rows_and_pairs() -> None:
    data = synthetic.ids_only()
    tasks = make_tasks(data, ("all",))
    check_tasks(data, tasks)
    rows = data.interactions.select(data.split.role == TEST).select(np.arange(1))
    bad = replace(tasks, final=replace(tasks.final, train=added(tasks.final.train, unplaced(rows))))
    with pytest.raises(
        LeakError,
        match=r"1 user-item pairs of test rows are in the training rows \(.*, unknown time\);",
    ):
        check_tasks(data, bad)


def test_a_source_that_learned_from_the_target_is_refused() -> None:
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


def test_what_the_split_does_not_promise_is_a_note() -> None:
    data = synthetic.dataset("given")
    tasks = make_tasks(data, ("small",))
    assert not leak_notes(data, tasks, Provenance())
    rows = held(data, 0).select(np.arange(2))
    asked = replace(
        tasks.final.rows, user=rows.user, item=rows.item, negatives=tasks.final.rows.negatives[:2]
    )
    known = replace(tasks, final=replace(tasks.final, rows=asked))
    check_tasks(data, known)
    assert leak_notes(data, known, Provenance())[0].startswith(
        "2 test pairs of the file are in the training rows (first: user"
    )
    loo = synthetic.dataset()
    notes = leak_notes(
        loo, make_tasks(loo, ("small",)), Provenance(source=("big",), mode="finetune")
    )
    assert "rows from after their user's test row were used to train the source (first" in notes[0]
    assert not leak_notes(
        loo, make_tasks(loo, ("small",)), Provenance(source=("big",), mode="joint")
    )
