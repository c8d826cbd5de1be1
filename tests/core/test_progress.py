"""Progress: steps that are known up front, honest estimates, and a time budget."""

from __future__ import annotations

from tlrec_edge.core.progress import Progress, Status, Step


class Clock:
    """A clock that only moves when it is set forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def followed(minutes: float | None = None) -> tuple[Progress, Clock, list[Status]]:
    clock, seen = Clock(), list[Status]()
    return Progress(seen.append, minutes, clock), clock, seen


def test_a_function_receives_a_line_for_each_piece_and_each_end() -> None:
    lines: list[str] = []
    progress = Progress.of(lines.append)
    progress.plan(Step("EASE", "t1"), Step("finetune", "t1 + 3 domains"))
    progress.begin("EASE")
    progress.doing("penalty 100, 1 of 4")
    progress.note("400,000 items")
    progress.end("penalty 100")
    progress.begin("finetune")
    progress.end()
    assert lines == [
        "1 of 2 · EASE · t1: penalty 100, 1 of 4",
        "1 of 2 · EASE · t1: 400,000 items",
        "1 of 2 · EASE · t1: penalty 100",
        "2 of 2 · finetune · t1 + 3 domains",
    ]


def test_the_number_of_steps_is_true_if_steps_are_skipped_or_planned_by_a_part() -> None:
    progress, _, seen = followed()
    progress.plan(Step("write"))
    progress.plan(Step("a"), Step("b"), Step("c"))  # by a part that runs before "write"
    for name in ("a", "c", "write"):
        progress.begin(name)
    assert [(status.number, status.count) for status in seen] == [(1, 4), (3, 4), (4, 4)]


def test_the_time_left_follows_the_measured_speed_of_each_kind_of_work() -> None:
    progress, clock, seen = followed()
    epochs = {"epochs": 20.0}
    progress.plan(Step("a", work=epochs, stops_early=True), Step("b", work={**epochs, "ease": 5.0}))
    progress.begin("a")
    progress.doing("epoch 1", "epochs", 1, 10)
    assert seen[-1].left is None, "nothing was measured"
    clock.now += 4  # an epoch was expected to take 2
    progress.doing("epoch 2", "epochs", 2, 10)
    assert seen[-1].left == (18 + 20 + 5) * 2
    assert seen[-1].stops_early
    clock.now += 4
    progress.end()
    assert seen[-1].left == (20 + 5) * 2
    progress.begin("b")
    progress.doing("ease", "ease")
    clock.now += 50
    progress.doing("epoch 1", "epochs", 1, 10)
    assert seen[-1].left == 20 * 2, "the speed of one kind does not change that of another"
    assert not seen[-1].stops_early


def test_without_the_work_of_every_step_no_time_is_promised() -> None:
    progress, clock, seen = followed()
    progress.plan(Step("a", work={"x": 1.0}), Step("b"))
    progress.begin("a")
    progress.doing("", "x")
    clock.now += 3
    progress.end()
    assert seen[-1].left is None
    assert (seen[-1].passed, seen[-1].step_passed) == (3, 3)


def test_a_step_takes_at_most_its_share_of_the_time_that_is_left() -> None:
    progress, clock, _ = followed(minutes=1)
    progress.plan(Step("a", work={"epochs": 10.0}, share=1 / 3), Step("b"))
    progress.begin("a")
    done = 0
    while not progress.late("epochs", 10):
        done += 1
        progress.doing("", "epochs", done, 10)
        clock.now += 6
    assert done == 3, "20 of 60 seconds"
    progress.cut_short("epochs 4 to 10")
    progress.end(repeated=True)
    assert progress.left_out == ["a: epochs 4 to 10"]
    assert progress.fits({"epochs": 2.0})
    assert not progress.fits({"epochs": 5.0}), "30 seconds, and 18 are reserved for a repeat of a"


def test_without_a_budget_nothing_is_late() -> None:
    progress, clock, _ = followed()
    progress.begin("a")
    clock.now += 1e9
    assert not progress.late("epochs", 10)
    assert progress.fits({"epochs": 1e9})


def test_the_parts_of_a_step_have_names_and_kinds_of_their_own() -> None:
    progress, clock, seen = followed()
    progress.plan(Step("joint", work={"pretraining: epochs": 10.0, "epochs": 10.0}))
    progress.begin("joint")
    with progress.within("pretraining:"):
        progress.doing("epoch 1 of 2", "epochs", 1, 2)
    assert str(seen[-1]) == "joint: pretraining: epoch 1 of 2"
    clock.now += 5
    progress.doing("epoch 1 of 2", "epochs", 1, 2)
    assert seen[-1].left == 5 + 10


def test_parallel_jobs_are_reported_as_they_end() -> None:
    progress, _, seen = followed()
    assert list(progress.each("folds", iter("xyz"), ["f0", "f1", "f2"])) == ["x", "y", "z"]
    assert [status.text for status in seen] == [
        *("", "0 of 3 done", "1 of 3 done, last f0", "2 of 3 done, last f1", "3 of 3 done"),
    ]
    assert list(progress.each("none", iter(()), [])) == []
