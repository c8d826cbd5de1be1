"""What a long call is doing, how long the rest may take, and what still fits in a time budget."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

JOBS = "jobs"
"""The kind of work of ``Progress.each``."""
Result = TypeVar("Result")
Work = Mapping[str, float]
"""Rough seconds by kind of work. Only the ratios within a kind count once its speed is measured."""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Step:
    """A step of a long call.

    Attributes:
        name: What is done.
        data: The data that it is done with; "" to show none.
        work: How much work it is at most; empty if unknown.
        stops_early: Whether it often takes less than ``work``.
        share: The share of the time left in a time budget that it may take.
    """

    name: str
    data: str = ""
    work: Work = field(default_factory=dict)
    stops_early: bool = False
    share: float = 1.0

    @property
    def title(self) -> str:
        """The name and the data."""
        return f"{self.name} · {self.data}" if self.data else self.name


@dataclass(frozen=True)
class Status:
    """What a call is doing at one moment. As text, it is one line.

    Attributes:
        event: "doing": a piece of the step begins; "done": the step is over; "note": a remark.
        step: The step; ``number`` of ``count``.
        text: What is done within the step, or what came of it.
        passed: Seconds since the call began.
        step_passed: Seconds since the step began.
        left: Seconds that the rest of the call takes by the speed so far; None if unknown.
        stops_early: Whether the rest often takes less than ``left``.
    """

    event: Literal["doing", "done", "note"]
    step: Step
    number: int
    count: int
    text: str
    passed: float
    step_passed: float
    left: float | None
    stops_early: bool

    @property
    def place(self) -> str:
        """The number and the title of the step."""
        number = f"{self.number} of {self.count} · " if self.count > 1 else ""
        return f"{number}{self.step.title}"

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.text)))


Listener = Callable[[Status], None]


class _Piece(NamedTuple):
    kind: str
    number: int
    of: int
    since: float


class Progress:
    """Follows the steps of a long call, for whoever waits for it, and keeps its time budget.

    A call plans its steps, begins and ends each, and says what it is doing within it. The time of
    each piece of work measures the speed of its kind.

    With ``minutes``, a step may take its share of the time that is left. What it does not use is
    left to the others.

    Attributes:
        left_out: What the time budget left no time for.
    """

    def __init__(
        self,
        listener: Listener | None = None,
        minutes: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.left_out: list[str] = []
        self.clock = clock
        self._listener = listener
        self._start = clock()
        self._deadline = math.inf if minutes is None else self._start + 60 * minutes
        self._plan: list[Step] = []
        self._current = -1  # index of the step in the plan
        self._began = self._start  # the step
        self._allowance = math.inf  # seconds that the step may take
        self._reserved = 0.0  # seconds that must be left after the step
        self._piece: _Piece | None = None
        self._prefix = ""
        self._share_done: dict[str, float] = {}  # of the step's work, by kind
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._work: defaultdict[str, float] = defaultdict(float)

    @classmethod
    def of(
        cls, given: Progress | Callable[[str], None] | None, minutes: float | None = None
    ) -> Progress:
        """Return ``given``; a function that takes text receives the line of every status.

        ``minutes`` from now become the time budget, unless they are None.
        """
        if isinstance(given, Progress):
            if minutes is not None:
                given._deadline = given.clock() + 60 * minutes
            return given
        if given is None:
            return cls(minutes=minutes)

        def listener(status: Status) -> None:
            if status.text or status.event == "done":
                given(str(status))

        return cls(listener, minutes)

    def plan(self, *steps: Step) -> None:
        """Add the steps that come next, before those that were planned earlier."""
        at = self._current + 1
        self._plan[at:at] = steps

    def begin(self, step: Step | str) -> None:
        """Begin the next planned step of this name; the steps before it are skipped.

        A ``Step`` takes the place of the one that was planned.
        """
        step = Step(step) if (is_name := isinstance(step, str)) else step
        rest = range(self._current + 1, len(self._plan))
        found = next((i for i in rest if self._plan[i].name == step.name), None)
        if found is None:
            found = self._current + 1
            self.plan(step)
        elif not is_name:
            self._plan[found] = step
        self._current, self._began = found, self.clock()
        self._piece, self._share_done = None, {}
        part = self._step.share * self.remaining
        self._allowance = min(part, self.remaining - self._reserved)
        self._tell("doing", "")

    def doing(self, text: str, kind: str = "", number: int = 1, of: int = 1) -> None:
        """Say what is done now: piece ``number`` of ``of`` of one kind of the step's work."""
        self._settle()
        kind = self._prefix + kind
        self._share_done.setdefault(kind, (number - 1) / of)
        self._piece = _Piece(kind, number, of, self.clock())
        self._tell("doing", self._prefix + text)

    def note(self, text: str) -> None:
        """Make a remark."""
        self._tell("note", text)

    def end(self, text: str = "", *, repeated: bool = False) -> None:
        """End the step; if it may be ``repeated`` at the end of the call, reserve its time."""
        self._settle()
        self._share_done = dict.fromkeys(self._step.work, 1.0)
        if repeated:
            self._reserved = max(self._reserved, self.clock() - self._began)
        self._tell("done", text)

    def each(
        self, step: str, results: Iterable[Result], names: Sequence[object]
    ) -> Iterator[Result]:
        """Yield the results of parallel jobs: a step whose pieces are the jobs, by name."""
        count = len(names)
        self.begin(step)
        if names:
            self.doing(f"0 of {count} done", JOBS, 1, count)
        for number, (name, result) in enumerate(zip(names, results, strict=True), 1):
            yield result
            if number < count:
                self.doing(f"{number} of {count} done, last {name}", JOBS, number + 1, count)
        self.end(f"{count} of {count} done")

    def leave_out(self, step: str) -> None:
        """Record a step that the time budget leaves no time for."""
        self.left_out.append(step)

    def cut_short(self, what: str) -> None:
        """Record what the time budget leaves no time for in the current step."""
        self.left_out.append(f"{self._step.title}: {self._prefix}{what}")

    @property
    def remaining(self) -> float:
        """Seconds until the end of the time budget; infinite without one."""
        return self._deadline - self.clock()

    def late(self, kind: str = "", of: int = 1) -> bool:
        """Return whether the step has no time for one more of ``of`` pieces of this kind.

        The first piece of a kind is not counted, because its speed is not known.
        """
        if math.isinf(self._deadline):
            return False
        self._settle()
        work, kind = self._step.work, self._prefix + kind
        rest = {k: w * (1 - self._share_done.get(k, 0.0)) for k, w in work.items() if k != kind}
        if self._work[kind]:
            rest[kind] = work.get(kind, 0.0) / of
        seconds = self.seconds(rest) or 0.0
        return self.clock() - self._began + seconds > self._allowance

    def fits(self, work: Work, *, repeated: bool = False) -> bool:
        """Return whether the budget has time for this work, and for what is reserved.

        Work that may be ``repeated`` at the end of the call needs its time twice.
        """
        seconds = self.seconds(work) or 0.0
        reserved = max(self._reserved, seconds) if repeated else self._reserved
        return seconds + reserved <= self.remaining

    def seconds(self, work: Work) -> float | None:
        """Return the seconds that work takes at the measured speed; None if none was measured."""
        total = sum(self._work.values())
        if not total:
            return None
        mean = sum(self._seconds.values()) / total
        pace = {kind: self._seconds[kind] / done for kind, done in self._work.items() if done}
        return sum(pace.get(kind, mean) * amount for kind, amount in work.items())

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Put a name before the texts and the kinds of work of a part of the step."""
        self._prefix = f"{name} "
        try:
            yield
        finally:
            self._prefix = ""

    @property
    def _step(self) -> Step:
        return self._plan[self._current] if self._current >= 0 else Step("")

    def _settle(self) -> None:
        """Measure the speed of the piece of work that is over."""
        piece = self._piece
        if piece is None or piece.kind not in self._step.work:
            return
        self._seconds[piece.kind] += self.clock() - piece.since
        self._work[piece.kind] += self._step.work[piece.kind] / piece.of
        self._share_done[piece.kind] = piece.number / piece.of
        self._piece = None

    def _left(self) -> float | None:
        current, *later = self._plan[self._current :] or [Step("")]
        if not all(step.work for step in later):
            return None
        work: defaultdict[str, float] = defaultdict(float)
        for kind, amount in current.work.items():
            work[kind] += amount * (1 - self._share_done.get(kind, 0.0))
        for step in later:
            for kind, amount in step.work.items():
                work[kind] += amount
        seconds = self.seconds(work)
        return None if seconds is None else min(seconds, max(self.remaining, 0.0))

    def _tell(self, event: Literal["doing", "done", "note"], text: str) -> None:
        if self._listener is None:
            return
        now = self.clock()
        self._listener(
            Status(
                event,
                self._step,
                self._current + 1,
                len(self._plan),
                text,
                now - self._start,
                now - self._began,
                self._left(),
                any(step.stops_early for step in self._plan[max(self._current, 0) :]),
            )
        )


Reporter = Progress | Callable[[str], None]
"""What the functions of the package accept as ``progress``: a function receives lines of text."""
