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
from tlrec_edge.bench.config import MAX_DURATION_FACTOR
from tlrec_edge.bench.latency import Times

Call = Callable[[int], Any]
StopCondition = Callable[[Sequence[int]], bool | None]
"""Times so far -> whether the question of a run is answered, None: not yet."""
_MIN_WARM_UP_CALLS = 10
_FIRST_CHECK = 128


@dataclass(frozen=True)
class Limits:
    """A run ends after ``seconds`` and ``min_queries``, whichever is later, but after ``5 * seconds`` at the latest."""

    seconds: float
    min_queries: int
    warmup: float

    def for_query_size(self, query_size: int) -> Limits:
        """Return the limits of queries that hold ``query_size`` requests: the count is one of requests."""
        return replace(self, min_queries=math.ceil(self.min_queries / query_size))

    def ends(self, start: int) -> tuple[int, int]:
        """Return the earliest and the latest end of a run that begins at ``start``, in nanoseconds."""
        return start + int(self.seconds * 1e9), start + int(
            MAX_DURATION_FACTOR * self.seconds * 1e9
        )


def closed_loop(call: Call, pool: int, limits: Limits, clock: Clock = WALL) -> Times:
    """Call round and round a pool of queries, each when the one before has ended."""
    at, durations = warm_up(call, pool, limits.warmup, clock), array("q")
    cpu, started = time.process_time(), clock.now()
    min_end, max_end = limits.ends(started)
    now = started
    while now < max_end and (now < min_end or len(durations) < limits.min_queries):
        at = (at + 1) % pool
        before = clock.now()
        call(at)
        now = clock.now()
        durations.append(now - before)
    return Times(durations, (now - started) / 1e9, time.process_time() - cpu)


def cold_loop(
    open_call: Callable[[], AbstractContextManager[Call]],
    pool: int,
    limits: Limits,
    clock: Clock = WALL,
) -> Times:
    """Call round a pool, each time what ``open_call`` yields, whose making is not timed; ``limits.seconds`` in all."""
    durations, cpu, at, end = array("q"), 0.0, 0, clock.now() + int(limits.seconds * 1e9)
    while not durations or clock.now() < end:
        with open_call() as call:
            busy, before = time.process_time(), clock.now()
            call(at % pool)
            durations.append(clock.now() - before)
            cpu += time.process_time() - busy
        at += 1
    return Times(durations, sum(durations) / 1e9, cpu)


def poisson(qps: float, limits: Limits, seed: int) -> list[int]:
    """Return the times of Poisson arrivals in nanoseconds, for as long as ``limits`` asks.

    They are those that LoadGen makes of this seed: the first at once, each gap the logarithm of two words of mt19937.
    """
    max_count = max(2, int(MAX_DURATION_FACTOR * limits.seconds * qps))
    min_count = max(1, round(limits.seconds * qps))
    count = min(max_count, max(min_count, limits.min_queries))
    words = np.random.RandomState((seed + 1) % 2**32).randint(
        0, 2**32, (count, 2), np.uint32
    )  # (count, low and high)
    gaps = -np.log1p(-(words @ [2.0**-64, 2.0**-32])) / qps * 1e9
    found: list[int] = np.cumsum(gaps.astype(np.int64)).tolist()
    return [0, *found[:-1]]


def open_loop(
    call: Call,
    pool: int,
    schedule: Sequence[int],
    limits: Limits,
    *,
    threads: int = 1,
    stop: StopCondition | None = None,
    clock: Clock = WALL,
) -> Times:
    """Send query i at ``schedule[i]`` nanoseconds, or as soon after as one of ``threads`` is free; time it from there.

    The run is given up ``limits.seconds`` after the last arrival; ``stop`` looks at the times now and then and may end
    it earlier.
    """
    first = warm_up(call, pool, limits.warmup, clock)
    durations, arrival_lock, numbers = array("q"), threading.Lock(), itertools.count()
    waited, stopped = [0], threading.Event()
    cpu, started = time.process_time(), clock.now()
    due = [started + moment for moment in schedule]
    max_end = max(due[-1], started + int(limits.seconds * 1e9)) + int(limits.seconds * 1e9)

    def work() -> None:
        next_check = _FIRST_CHECK
        while not stopped.is_set():
            # One waits for its moment; the others wait for the lock, so that arrivals are served in order.
            with arrival_lock:
                at = next(numbers)
                if at >= len(due):
                    return
                if clock.now() < due[at]:
                    before = time.thread_time_ns()
                    clock.wait_until(due[at], threads == 1)
                    waited[0] += time.thread_time_ns() - before
            call((first + 1 + at) % pool)
            now = clock.now()
            durations.append(now - due[at])
            if now > max_end:
                stopped.set()
            if stop is not None and len(durations) >= next_check:
                next_check *= 2
                if stop(durations) is not None:
                    stopped.set()

    _in_threads(work, threads, stopped)
    now = clock.now()
    # Whoever still waits has waited this long at least.
    waiting = [now - moment for moment in due[next(numbers) :] if moment < now]
    seconds, arrived = (
        (now - started) / 1e9,
        len(schedule) / schedule[-1] * 1e9 if schedule[-1] else None,
    )
    return Times(
        [*durations, *waiting],
        seconds,
        time.process_time() - cpu - waited[0] / 1e9,
        unanswered=len(waiting),
        arrived_qps=arrived,
    )


def saturated_loop(
    call: Call, pool: int, limits: Limits, threads: int = 1, clock: Clock = WALL
) -> Times:
    """Call as often as ``threads`` can: throughput is what counts, the times are those of one call in that crowd."""
    at, durations, numbers = (
        warm_up(call, pool, limits.warmup, clock),
        array("q"),
        itertools.count(),
    )
    stopped = threading.Event()
    cpu, started = time.process_time(), clock.now()
    min_end, max_end = limits.ends(started)

    def work() -> None:
        now = started
        while (
            not stopped.is_set()
            and now < max_end
            and (now < min_end or len(durations) < limits.min_queries)
        ):
            before = clock.now()
            call((at + 1 + next(numbers)) % pool)
            now = clock.now()
            durations.append(now - before)

    _in_threads(work, threads, stopped)
    return Times(durations, (clock.now() - started) / 1e9, time.process_time() - cpu)


def warm_up(call: Call, pool: int, seconds: float, clock: Clock = WALL) -> int:
    """Call for a while without timing; return the place in the pool of the last call."""
    end, at = clock.now() + int(seconds * 1e9), 0
    while at < _MIN_WARM_UP_CALLS or clock.now() < end:
        call(at % pool)
        at += 1
    return (at - 1) % pool


def _in_threads(work: Callable[[], None], threads: int, stopped: threading.Event) -> None:
    """Run ``work`` in so many threads; an error in one of them, or Ctrl-C, sets ``stopped`` for the others."""
    if threads == 1:
        work()
        return
    with ThreadPoolExecutor(threads) as workers:
        started = [workers.submit(work) for _ in range(threads)]
        try:
            for done in as_completed(started):
                done.result()
        except BaseException:
            stopped.set()
            raise
