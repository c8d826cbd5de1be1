"""Progress on stderr, --quiet and --time-budget."""

from __future__ import annotations

import sys
from io import StringIO

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from tlrec_edge.cli import progress as shown
from tlrec_edge.cli.common import Minutes
from tlrec_edge.cli.progress import clock, quiet_option, show_progress, time_left
from tlrec_edge.core.progress import Progress, Status, Step


def follow(progress: Progress) -> None:
    progress.plan(Step("EASE", "t1", {"solutions": 1.0}), Step("finetune", work={"epochs": 2.0}))
    progress.begin("EASE")
    progress.doing("penalty 100, 1 of 4", "solutions")
    progress.end("penalty 30, validation 0.7002")
    progress.begin("finetune")
    progress.note("few rows")


def test_without_a_terminal_each_finished_step_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_progress("adapt") as progress:
        follow(progress)
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.splitlines() == [
        "adapt: 1 of 2 · EASE · t1: penalty 30, validation 0.7002 (0:00)",
        "adapt: 2 of 2 · finetune: few rows",
    ]


def test_quiet_prints_no_progress() -> None:
    @click.command()
    @quiet_option
    def command() -> None:
        with show_progress("adapt") as progress:
            follow(progress)

    assert CliRunner().invoke(command, ["-q"]).stderr == ""
    assert CliRunner().invoke(command, ["--quiet"]).stderr == ""
    assert "EASE" in CliRunner().invoke(command, []).stderr


def test_on_a_terminal_a_live_line_replaces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with show_progress("adapt") as progress:
        follow(progress)
    assert "1 of 2 · EASE · t1: penalty 30, validation 0.7002 (0:00)" in terminal.getvalue()


def test_the_live_line_has_the_step_and_the_times() -> None:
    step = Step("finetune", "t1 + [red]3[/red] domains")
    status = Status("doing", step, 4, 12, "epoch 3 of 20", 100.0, 20.0, 300.0, True)
    view = shown._Shown("adapt")
    view.set(status)
    console = Console(file=StringIO(), width=140)
    console.print(shown._render(view))
    assert isinstance(console.file, StringIO)
    line = console.file.getvalue()
    assert "4 of 12 · finetune · t1 + [red]3[/red] domains: epoch 3 of 20" in line
    assert "0:00 passed, at most 5 min left" in line


@pytest.mark.parametrize(
    ("left", "stops_early", "words"),
    [
        (None, True, ""),
        (0.0, False, "about 10 s left"),
        (61.0, True, "at most 70 s left"),
        (91.0, True, "at most 2 min left"),
        (3 * 3600.0, False, "about 3.0 h left"),
    ],
)
def test_the_time_left_is_rounded(left: float | None, stops_early: bool, words: str) -> None:
    status = Status("doing", Step("a"), 1, 1, "", 0.0, 0.0, left, stops_early)
    assert time_left(status, 0.0) == words


def test_clocks() -> None:
    assert [clock(s) for s in (7.9, 754, 3723)] == ["0:07", "12:34", "1:02:03"]


@pytest.mark.parametrize(
    ("text", "minutes"), [("90s", 1.5), ("2m", 2.0), ("1.5h", 90.0), ("3", 3.0), (" 2 m ", 2.0)]
)
def test_a_time_budget_has_a_unit_or_is_in_minutes(text: str, minutes: float) -> None:
    assert Minutes().convert(text, None, None) == minutes


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "2d", "nan", "1h30m", "９m", "9" * 400])
def test_other_time_budgets_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 90s, 2m, 1h or a number of minutes"):
        Minutes().convert(text, None, None)
