"""Drivers: how queries reach a system, and how long each took.

Each driver is a loop over ``call(0)``, ``call(1)``, ... A closed loop sends a query when the one
before is answered, so a stall delays, and shows in, a single query. An open loop sends queries at
scheduled times and measures from those, so a stall shows in every query that it delayed (no
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
"""Answers the query of this number."""
StopCondition = Callable[[Sequence[int]], bool | None]
"""Takes the times so far; ends the run unless it returns None."""
_MIN_WARM_UP_CALLS = 10
_FIRST_CHECK = 128
"""Timings before a stop condition is first checked; then whenever their number doubles."""


@dataclass(frozen=True)
class Limits:
    """When a run ends.

    It ends after ``seconds`` and ``min_queries``, whichever is later, but after five times
    ``seconds`` in any case.
    """

    seconds: float
    min_queries: int
    warmup: float
    """Seconds of untimed calls before the run."""

    def for_query_size(self, query_size: int) -> Limits:
        """Return the limits for queries of several requests: ``min_queries`` counts requests."""
        return replace(self, min_queries=math.ceil(self.min_queries / query_size))

    def ends(self, start: int) -> tuple[int, int]:
        """Return the earliest and latest end of a run that starts at ``start``, in nanoseconds."""
        latest = MAX_DURATION_FACTOR * self.seconds
        return start + int(self.seconds * 1e9), start + int(latest * 1e9)


def closed_loop(call: Call, pool: int, limits: Limits, clock: Clock = WALL) -> Times:
    """Send the queries of a pool in turn, each when the previous one has ended."""
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
    """Go round a pool of queries and open a new ``call`` for each; the opening is not timed.

    The run lasts ``limits.seconds`` with all openings, and has at least one query.
    """
    durations, cpu, at, end = array("q"), 0.0, 0, clock.now() + int(limits.seconds * 1e9)
    while not durations or clock.now() < end:
        with open_call() as call:
            cpu_before, before = time.process_time(), clock.now()
            call(at % pool)
            durations.append(clock.now() - before)
            cpu += time.process_time() - cpu_before
        at += 1
    return Times(durations, sum(durations) / 1e9, cpu)


def poisson(qps: float, limits: Limits, seed: int) -> list[int]:
    """Return Poisson arrival times in nanoseconds, within ``limits``.

    They are those that LoadGen makes of this seed, so that both drivers send at the same moments:
    the first at once, then gaps that are each made of two words of a Mersenne twister.
    """
    max_count = max(2, int(MAX_DURATION_FACTOR * limits.seconds * qps))
    min_count = max(1, round(limits.seconds * qps))
    count = min(max_count, max(min_count, limits.min_queries))
    twister = np.random.RandomState((seed + 1) % 2**32)
    words = twister.randint(0, 2**32, (count, 2), np.uint32)  # (count, low and high word)
    uniform = words @ [2.0**-64, 2.0**-32]
    gaps = -np.log1p(-uniform) / qps * 1e9
    arrivals: list[int] = np.cumsum(gaps.astype(np.int64)).tolist()
    return [0, *arrivals[:-1]]


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
    """Send query i at ``schedule[i]`` nanoseconds, and time it from then.

    If no thread is free at that moment, the query waits for one, and the wait counts. The run is
    given up ``limits.seconds`` after the last arrival; ``stop`` may end it earlier.
    """
    first = warm_up(call, pool, limits.warmup, clock)
    durations, arrival_lock, numbers = array("q"), threading.Lock(), itertools.count()
    waiting_cpu_ns, stopped = [0], threading.Event()
    cpu, started = time.process_time(), clock.now()
    due = [started + moment for moment in schedule]
    patience = int(limits.seconds * 1e9)
    max_end = max(due[-1], started + patience) + patience

    def work() -> None:
        next_check = _FIRST_CHECK
        while not stopped.is_set():
            # One thread waits for the next arrival, the others for the lock: this serves arrivals
            # in their order.
            with arrival_lock:
                at = next(numbers)
                if at >= len(due):
                    return
                if clock.now() < due[at]:
                    before = time.thread_time_ns()
                    clock.wait_until(due[at], threads == 1)
                    waiting_cpu_ns[0] += time.thread_time_ns() - before
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
    # A query without an answer has a latency of at least the time that it waited.
    waiting = [now - moment for moment in due[next(numbers) :] if moment < now]
    return Times(
        [*durations, *waiting],
        seconds=(now - started) / 1e9,
        cpu_seconds=time.process_time() - cpu - waiting_cpu_ns[0] / 1e9,
        unanswered=len(waiting),
        arrived_qps=len(schedule) / schedule[-1] * 1e9 if schedule[-1] else None,
    )


def saturated_loop(
    call: Call, pool: int, limits: Limits, threads: int = 1, clock: Clock = WALL
) -> Times:
    """Send queries from ``threads`` that are never idle, to measure throughput.

    The durations are those of calls that compete with each other.
    """
    at = warm_up(call, pool, limits.warmup, clock)
    durations, numbers, stopped = array("q"), itertools.count(), threading.Event()
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
    """Send queries without timing them; return the number of the last one."""
    end, at = clock.now() + int(seconds * 1e9), 0
    while at < _MIN_WARM_UP_CALLS or clock.now() < end:
        call(at % pool)
        at += 1
    return (at - 1) % pool


def _in_threads(work: Callable[[], None], threads: int, stopped: threading.Event) -> None:
    """Run ``work`` in several threads; an error or Ctrl-C sets ``stopped`` for the others."""
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
