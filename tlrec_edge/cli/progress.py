"""Progress on stderr: a live line on a terminal, plain lines elsewhere, nothing if --quiet."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from tlrec_edge.cli.output import plain, say
from tlrec_edge.core.progress import Progress, Status

if TYPE_CHECKING:
    from rich.table import Table

QUIET = "tlrec_edge.quiet"
"""Key in ``Context.meta``: whether the command prints no progress."""
FIRST_INTERVAL = 10.0
"""Seconds between two plain lines of one step; in long runs a thirtieth of the time passed."""
_BAR_WIDTH = 20


def _set_quiet(context: click.Context, option: click.Parameter, given: bool) -> None:
    context.meta[QUIET] = given


quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_set_quiet,
    help="Print the result, warnings and errors, but no progress.",
)


def is_quiet() -> bool:
    """Return whether the current command prints no progress."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(QUIET))


def say_progress(line: str) -> None:
    """Print a line of progress to stderr."""
    if not is_quiet():
        say(line, err=True)


@contextmanager
def show_progress(command: str) -> Iterator[Progress]:
    """Yield a progress whose steps are shown on stderr."""
    if is_quiet():
        yield Progress()
        return
    show = _live_line if sys.stderr.isatty() else _plain_lines
    with show(command) as progress:
        yield progress


def clock(seconds: float) -> str:
    """Format a time that has passed: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_left(status: Status, since: float) -> str:
    """Describe the time that is left ``since`` seconds after a status; "" if unknown."""
    if status.left is None:
        return ""
    seconds = max(status.left - since, 1.0)
    if seconds <= 90:
        amount = f"{10 * math.ceil(seconds / 10)} s"
    elif seconds <= 90 * 60:
        amount = f"{math.ceil(seconds / 60)} min"
    else:
        amount = f"{seconds / 3600:.1f} h"
    return f"{'at most' if status.stops_early else 'about'} {amount} left"


class _Shown:
    """The last status, and the time since."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.status: Status | None = None
        self._since = self._start = time.monotonic()

    def set(self, status: Status) -> None:
        self.status, self._since = status, time.monotonic()

    @staticmethod
    def is_worth_a_line(status: Status) -> bool:
        """Return whether a status is a line of its own: a remark, or the end of a step.

        Not the end of one that took no second and has no result.
        """
        return status.event == "note" or (
            status.event == "done" and (bool(status.text) or status.step_passed >= 1.0)
        )

    @property
    def times(self) -> str:
        """The time passed and the time left."""
        passed = clock(time.monotonic() - self._start)
        left = self.status and time_left(self.status, time.monotonic() - self._since)
        return f"{passed} passed, {left}" if left else f"{passed} passed"

    @property
    def share(self) -> float | None:
        """The share of the work that is done; None if nothing is known."""
        status = self.status
        if status is None or status.left is None:
            return None
        passed = time.monotonic() - self._start
        return passed / (passed + max(status.left - (time.monotonic() - self._since), 0.1))

    def line(self, status: Status) -> str:
        """Return the line of a finished step or a remark."""
        seconds = f" ({clock(status.step_passed)})" if status.event == "done" else ""
        return f"{status}{seconds}"


@contextmanager
def _plain_lines(command: str) -> Iterator[Progress]:
    """Print a line when a step ends, and one from time to time while it takes long."""
    shown, lock, stop = _Shown(command), threading.Lock(), threading.Event()
    start = last = time.monotonic()

    def write(line: str) -> None:
        nonlocal last
        last = time.monotonic()
        say(f"{command}: {line}", err=True)

    def listen(status: Status) -> None:
        with lock:
            shown.set(status)
            if shown.is_worth_a_line(status):
                write(shown.line(status))

    def beat() -> None:
        while not stop.wait(1.0):
            now = time.monotonic()
            with lock:
                if now - last >= max(FIRST_INTERVAL, (now - start) / 30):
                    write(f"{shown.status}; {shown.times}" if shown.status else shown.times)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield Progress(listen)
    finally:
        stop.set()
        thread.join()


@contextmanager
def _live_line(command: str) -> Iterator[Progress]:
    """Keep one line with a bar up to date; finished steps become short lines above it."""
    from rich.console import Console
    from rich.live import Live

    shown = _Shown(command)
    console = Console(stderr=True, highlight=False)

    def listen(status: Status) -> None:
        shown.set(status)
        if shown.is_worth_a_line(status):
            console.print(plain(shown.line(status)), style="dim", overflow="ellipsis")

    with Live(console=console, get_renderable=lambda: _render(shown), transient=True):
        yield Progress(listen)


def _render(shown: _Shown) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    share = shown.share
    bar = ProgressBar(1.0, share or 0.0, width=_BAR_WIDTH, pulse=share is None)
    what = str(shown.status) if shown.status else ""
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(width=_BAR_WIDTH)
    line.add_column(no_wrap=True)
    line.add_row(plain(shown.command), plain(what), bar, plain(shown.times))
    return line
