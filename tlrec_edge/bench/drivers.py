"""The drivers: how queries reach a system, and how long each took. Each is a loop over ``call(0)``, ``call(1)``, ...

A closed loop sends a query when the one before is answered, so that a stall delays, and is seen by, one query. An open
loop sends them at given times and measures from those, so that a stall is seen by each query that it delayed (no
coordinated omission).
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.config import LONGEST
from tlrec_edge.bench.latency import Times

Call = Callable[[int], Any]
Verdict = Callable[[Sequence[int]], bool | None]
"""Times so far -> whether the question of a run is answered, None: not yet."""
_MIN_WARM_UP_CALLS = 10
_FIRST_LOOK = 128


@dataclass(frozen=True)
class Limits:
    """A run ends after ``seconds`` and ``min_queries``, whichever is later, but after ``5 * seconds`` at the latest."""

    seconds: float
    min_queries: int
    warmup: float

    def of_many(self, each: int) -> Limits:
        """Return the limits of queries that hold ``each`` requests: the count is one of requests."""
        return replace(self, min_queries=math.ceil(self.min_queries / each))

    def ends(self, start: int) -> tuple[int, int]:
        """Return the earliest and the latest end of a run that begins at ``start``, in nanoseconds."""
        return start + int(self.seconds * 1e9), start + int(LONGEST * self.seconds * 1e9)


def closed_loop(call: Call, pool: int, limits: Limits, clock: Clock = WALL) -> Times:
    """Call round and round a pool of queries, each when the one before has ended."""
    at, taken = warm_up(call, pool, limits.warmup, clock), array("q")
    cpu, started = time.process_time(), clock.now()
    soft, hard = limits.ends(started)
    now = started
    while now < hard and (now < soft or len(taken) < limits.min_queries):
        at = (at + 1) % pool
        before = clock.now()
        call(at)
        now = clock.now()
        taken.append(now - before)
    return Times(taken, (now - started) / 1e9, time.process_time() - cpu)


def cold_loop(
    fresh: Callable[[], AbstractContextManager[Call]], pool: int, limits: Limits, clock: Clock = WALL
) -> Times:
    """Call round a pool, each time what ``fresh`` yields, whose making is not timed; ``limits.seconds`` in all."""
    taken, cpu, at, end = array("q"), 0.0, 0, clock.now() + int(limits.seconds * 1e9)
    while not taken or clock.now() < end:
        with fresh() as call:
            busy, before = time.process_time(), clock.now()
            call(at % pool)
            taken.append(clock.now() - before)
            cpu += time.process_time() - busy
        at += 1
    return Times(taken, sum(taken) / 1e9, cpu)


def poisson(qps: float, limits: Limits, seed: int) -> list[int]:
    """Return the times of Poisson arrivals in nanoseconds, for as long as ``limits`` asks.

    They are those that LoadGen makes of this seed: the first at once, each gap the logarithm of two words of mt19937.
    """
    most = max(2, int(LONGEST * limits.seconds * qps))
    least = max(1, round(limits.seconds * qps))
    count = min(most, max(least, limits.min_queries))
    words = np.random.RandomState((seed + 1) % 2**32).randint(0, 2**32, (count, 2), np.uint32)  # (count, low and high)
    gaps = -np.log1p(-(words @ [2.0**-64, 2.0**-32])) / qps * 1e9
    found: list[int] = np.cumsum(gaps.astype(np.int64)).tolist()
    return [0, *found[:-1]]


def open_loop(
    call: Call, pool: int, schedule: Sequence[int], limits: Limits, *,
    threads: int = 1, stop: Verdict | None = None, clock: Clock = WALL,
) -> Times:  # fmt: skip
    """Send query i at ``schedule[i]`` nanoseconds, or as soon after as one of ``threads`` is free; time it from there.

    The run is given up ``limits.seconds`` after the last arrival; ``stop`` looks at the times now and then and may end
    it earlier.
    """
    first = warm_up(call, pool, limits.warmup, clock)
    taken, turn, numbers = array("q"), threading.Lock(), itertools.count()
    waited, over = [0], threading.Event()
    cpu, started = time.process_time(), clock.now()
    due = [started + moment for moment in schedule]
    hard = max(due[-1], started + int(limits.seconds * 1e9)) + int(limits.seconds * 1e9)

    def work() -> None:
        look = _FIRST_LOOK
        while not over.is_set():
            # One waits for its moment; the others wait for their turn, so that arrivals are served in order.
            with turn:
                at = next(numbers)
                if at >= len(due):
                    return
                if clock.now() < due[at]:
                    before = time.thread_time_ns()
                    clock.wait_until(due[at], threads == 1)
                    waited[0] += time.thread_time_ns() - before
            call((first + 1 + at) % pool)
            now = clock.now()
            taken.append(now - due[at])
            if now > hard:
                over.set()
            if stop is not None and len(taken) >= look:
                look *= 2
                if stop(taken) is not None:
                    over.set()

    _in_threads(work, threads, over)
    now = clock.now()
    # Whoever still waits has waited this long at least.
    waiting = [now - moment for moment in due[next(numbers) :] if moment < now]
    seconds, arrived = (now - started) / 1e9, len(schedule) / schedule[-1] * 1e9 if schedule[-1] else None
    return Times(
        [*taken, *waiting], seconds, time.process_time() - cpu - waited[0] / 1e9, unanswered=len(waiting),
        arrived_qps=arrived,
    )  # fmt: skip


def flat_out(call: Call, pool: int, limits: Limits, threads: int = 1, clock: Clock = WALL) -> Times:
    """Call as often as ``threads`` can: throughput is what counts, the times are those of one call in that crowd."""
    at, taken, numbers = warm_up(call, pool, limits.warmup, clock), array("q"), itertools.count()
    over = threading.Event()
    cpu, started = time.process_time(), clock.now()
    soft, hard = limits.ends(started)

    def work() -> None:
        now = started
        while not over.is_set() and now < hard and (now < soft or len(taken) < limits.min_queries):
            before = clock.now()
            call((at + 1 + next(numbers)) % pool)
            now = clock.now()
            taken.append(now - before)

    _in_threads(work, threads, over)
    return Times(taken, (clock.now() - started) / 1e9, time.process_time() - cpu)


def warm_up(call: Call, pool: int, seconds: float, clock: Clock = WALL) -> int:
    """Call for a while without timing; return the place in the pool of the last call."""
    end, at = clock.now() + int(seconds * 1e9), 0
    while at < _MIN_WARM_UP_CALLS or clock.now() < end:
        call(at % pool)
        at += 1
    return (at - 1) % pool


def _in_threads(work: Callable[[], None], threads: int, over: threading.Event) -> None:
    """Run ``work`` in so many threads; an error in one of them, or Ctrl-C, sets ``over`` for the others."""
    if threads == 1:
        work()
        return
    with ThreadPoolExecutor(threads) as workers:
        started = [workers.submit(work) for _ in range(threads)]
        try:
            for done in as_completed(started):
                done.result()
        except BaseException:
            over.set()
            raise
