"""The drivers measure the right times: checked on systems whose latency is known."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers.systems import MS, Recorder, SleepingClock, Stalling, VirtualClock
from tlrec_edge.bench import BenchConfig
from tlrec_edge.bench.clock import Clock, set_timer_slack
from tlrec_edge.bench.drivers import Limits, closed_loop, open_loop, poisson, saturated_loop
from tlrec_edge.bench.function import FunctionSource
from tlrec_edge.bench.lab import Lab, caller
from tlrec_edge.bench.latency import (
    Times,
    binomial_cdf,
    describe,
    holds,
    max_exceeding,
    merge,
    percentile,
)
from tlrec_edge.bench.requests import ItemIds, Requests
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.search import find_qps

LONG = Limits(seconds=60.0, min_queries=1, warmup=0.0)


def lab(system: Any, clock: Clock, **config: Any) -> Lab:
    small: dict[str, Any] = {"candidates": (1,), "load": 1, "pool": 4, "warmup": 0.0}
    settings = BenchConfig(**(small | config))
    return Lab(
        FunctionSource("x:y"),
        system,
        Requests(ItemIds.generated(50, 3), 4, 1.0, 0),
        settings,
        clock,
    )


@pytest.mark.parametrize(
    ("n", "p", "expected"),
    [
        (1, 0.5, 0),
        (2, 0.5, 1),
        (10, 0.9, 9),
        (100, 0.99, 99),
        (1000, 0.99, 990),
        (1000, 0.999, 999),
        (3, 1.0, 2),
    ],
)
def test_percentiles_follow_the_definition(n: int, p: float, expected: int) -> None:
    assert percentile(range(n), p) == expected


def test_a_summary_follows_the_definition_in_microseconds() -> None:
    times = Times([1000 * n for n in range(1000, 0, -1)], 1.0, 0.5)
    seen = times.describe(0.99)
    assert seen.us == {"p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1000}
    assert describe([1.0])["p50"] == 1
    assert (seen.qps, seen.cpu_percent, seen.cpu_seconds_per_million) == (1000, 50, 500)
    assert seen.curve[0] == (0, 1)
    assert seen.curve[-1] == (1, 1000)


def test_merged_processes_are_one_run_of_all_queries() -> None:
    both = merge(
        [Times([1], 1.0, 0.5, query_size=4), Times([3, 2], 2.0, 0.5, query_size=4, unanswered=1)]
    )
    assert sorted(both.durations) == [1, 2, 3]
    assert (both.seconds, both.cpu_seconds, both.query_size, both.unanswered) == (2.0, 1.0, 4, 1)


def test_the_binomial_distribution_is_that_of_scipy() -> None:
    from scipy.stats import binom

    for n, q in ((1, 0.5), (459, 0.01), (100_000, 0.001)):
        np.testing.assert_allclose(binomial_cdf(n, q), binom.cdf(np.arange(n + 1), n, q), atol=1e-9)


def bounds_of(durations: list[int], confidence: float) -> dict[str, float]:
    bounds = Times(durations, 1, 0).describe(confidence).bound_us
    assert bounds is not None
    return bounds


def test_a_bound_needs_enough_queries_for_its_confidence() -> None:
    # 0.99 ** 459 is the first power below 0.01.
    assert max_exceeding(458, 0.99, 0.99) is None
    assert max_exceeding(459, 0.99, 0.99) == 0
    assert "p99" not in bounds_of([1] * 458, 0.99)
    assert bounds_of([1000] * 458 + [9000], 0.99)["p99"] == 9


def test_bounds_hold_at_their_confidence() -> None:
    rng = np.random.default_rng(0)
    bounds = [
        bounds_of(rng.exponential(1e6, 1000).astype(int).tolist(), 0.9)["p99"] for _ in range(400)
    ]
    covered = np.mean(np.array(bounds) >= -1000 * np.log(0.01))
    assert 0.87 <= covered <= 0.97


def test_early_stopping_is_yes_no_or_not_yet() -> None:
    assert holds(459, 0, 0.99, 0.99) is True
    assert holds(458, 0, 0.99, 0.99) is None
    assert holds(100, 10, 0.99, 0.99) is False
    assert holds(0, 0, 0.99, 0.99) is None


def test_arrivals_are_poisson_and_seeded() -> None:
    arrivals = poisson(1000.0, LONG, 3)
    gaps = np.diff(arrivals) / 1e6
    assert len(arrivals) == 60_000
    assert gaps.mean() == pytest.approx(1, rel=0.02)
    assert gaps.std() == pytest.approx(1, rel=0.02)
    assert arrivals == poisson(1000.0, LONG, 3) != poisson(1000.0, LONG, 4)
    assert len(poisson(10.0, Limits(2.0, 1000, 0), 0)) == 100, "at most five times the seconds"
    assert poisson(100.0, Limits(1.01, 1, 0), 0)[-1] == 1_064_780_852, "the time in LoadGen's log"


def test_a_stall_shows_in_every_delayed_query_of_an_open_loop_but_not_of_a_closed_one() -> None:
    arrivals, clock = poisson(100.0, LONG, 0), VirtualClock()
    system = Stalling(clock)
    opened = open_loop(lambda at: system.answer([at]), 8, arrivals, LONG, clock=clock)
    clock = VirtualClock()
    system = Stalling(clock)
    closed = closed_loop(lambda at: system.answer([at]), 8, LONG, clock)
    exact = np.sort(Stalling(VirtualClock()).latencies(poisson(100.0, Limits(3600.0, 1, 0), 9)))
    truth = percentile(exact, 0.99) / 1000
    assert opened.describe(0.99).us["p99"] == pytest.approx(truth, rel=0.05)
    assert truth > 150_000
    assert closed.describe(0.99).us["p99"] == 2000, "one query in 400 sees the stall"


def test_an_open_loop_measures_from_the_scheduled_time_to_the_nanosecond() -> None:
    arrivals, clock = poisson(300.0, LONG, 1), VirtualClock()
    system = Stalling(clock, work=3 * MS, stall=0)
    seen = open_loop(lambda at: system.answer([at]), 8, arrivals, LONG, clock=clock)
    assert list(seen.durations) == Stalling(VirtualClock(), work=3 * MS, stall=0).latencies(
        arrivals
    )


@pytest.mark.slow
def test_a_real_stall_is_measured_within_five_percent() -> None:
    limits, clock = Limits(20.0, 1, 0.0), SleepingClock()
    arrivals = poisson(100.0, limits, 0)
    system = Stalling(clock)
    opened = open_loop(lambda at: system.answer([at]), 8, arrivals, limits)
    closed = closed_loop(lambda at: system.answer([at]), 8, Limits(5.0, 1, 0.0))
    truth = percentile(
        np.sort(Stalling(VirtualClock()).latencies(poisson(100.0, Limits(3600.0, 1, 0), 9))), 0.99
    )
    assert opened.describe(0.99).us["p99"] == pytest.approx(truth / 1000, rel=0.05)
    assert closed.describe(0.99).us["p99"] < 0.1 * truth / 1000


def test_an_unanswered_query_counts_with_the_time_it_waited() -> None:
    clock = VirtualClock()
    system = Stalling(clock, work=10 * MS, stall=0)
    limits = Limits(1.0, 1, 0.0)
    seen = open_loop(
        lambda at: system.answer([at]), 8, poisson(1000.0, limits, 0), limits, clock=clock
    )
    assert seen.unanswered > 500
    assert len(seen.durations) == 1000
    assert seen.describe(0.99).us["p99"] > 1e6
    assert seen.seconds < 2.2


def in_step(clock: VirtualClock, threads: int, work: int) -> Callable[[int], object]:
    """Return a call of ``work`` nanoseconds that ends when ``threads`` threads are in it."""
    together = threading.Barrier(threads, lambda: clock.wait_until(clock.now() + work))

    def call(at: int) -> None:
        if (
            threading.current_thread() is not threading.main_thread() or threads == 1
        ):  # warming up is not timed
            together.wait(60)

    return call


def test_threads_serve_one_queue() -> None:
    limits, arrivals = Limits(0.3, 1, 0.0), [0] * 12
    for threads in (1, 4):
        clock = VirtualClock()
        call = in_step(clock, threads, 20 * MS)
        seen = open_loop(call, 4, arrivals, limits, threads=threads, clock=clock)
        rounds = range(1, 12 // threads + 1)
        assert sorted(seen.durations) == [20 * MS * n for n in rounds for _ in range(threads)]


def test_an_error_in_a_thread_ends_the_run() -> None:
    def fail(at: int) -> None:
        if at == 3:
            raise RuntimeError("three")

    with pytest.raises(RuntimeError, match="three"):
        open_loop(fail, 4, [10 * MS] * 100, Limits(0.1, 1, 0.0), threads=2)


def test_waiting_costs_no_cpu_time_of_the_system() -> None:
    class Spinning(VirtualClock):
        """Uses a millisecond of CPU time for each wait."""

        def wait_until(self, deadline: int, exclusive: bool = True) -> None:
            end = time.thread_time_ns() + MS
            while time.thread_time_ns() < end:
                pass
            super().wait_until(deadline)

    limits = Limits(0.1, 1, 0.0)
    arrivals = poisson(2000.0, limits, 0)
    seen = open_loop(lambda at: None, 4, arrivals, limits, clock=Spinning())
    assert seen.cpu_seconds < 0.5 * len(arrivals) / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has timer slack")
def test_sleeps_of_a_thread_can_end_on_time() -> None:
    current, libc = 30, ctypes.CDLL(None)  # PR_GET_TIMERSLACK
    usual = libc.prctl(current, 0, 0, 0, 0)
    set_timer_slack(1)
    assert libc.prctl(current, 0, 0, 0, 0) == 1
    set_timer_slack(0)
    assert libc.prctl(current, 0, 0, 0, 0) == usual > 1


def test_a_closed_loop_goes_round_the_pool_and_ends_in_time() -> None:
    called: list[int] = []
    seen = closed_loop(called.append, 3, Limits(0.01, 50, 0.0))
    assert called[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert len(seen.durations) >= 50
    clock = VirtualClock()
    slow = closed_loop(in_step(clock, 1, MS), 3, Limits(0.01, 10**9, 0.0), clock)
    assert slow.seconds == 0.05


def test_throughput_is_that_of_all_threads() -> None:
    clock = VirtualClock()
    seen = saturated_loop(
        in_step(clock, 4, 10 * MS), 4, Limits(0.2, 1, 0.0), threads=4, clock=clock
    ).describe(0.99)
    assert seen.qps == 400


def test_a_query_of_several_requests_is_timed_to_its_last_answer() -> None:
    clock = VirtualClock()
    (row,) = SCENARIOS["multi-stream"](lab(Stalling(clock, work=3 * MS, stall=0), clock, streams=4))
    assert row.latency.us["p50"] == 12_000
    assert row.latency.qps == pytest.approx(1000 / 3)
    (row,) = SCENARIOS["offline"](lab(Stalling(clock, work=3 * MS, stall=0), clock, batch=10))
    assert row.latency.qps == pytest.approx(1000 / 3, rel=0.01)


def test_queries_share_no_request_until_all_were_sent() -> None:
    recorder = Recorder()
    call = caller(recorder, list(range(12)), 4)  # type: ignore[arg-type]  # stand-ins, not read
    for at in range(3):
        call(at)
    assert recorder.seen == list(range(12))


def test_the_server_scenario_runs_at_fractions_of_the_capacity() -> None:
    clock = VirtualClock()
    rows = list(SCENARIOS["server"](lab(Stalling(clock, work=2 * MS, stall=0), clock)))
    assert [row.target_qps for row in rows] == pytest.approx(
        [50, 150, 250, 350, 400, 450], rel=0.01
    )
    (over,) = SCENARIOS["server"](lab(Stalling(clock, work=2 * MS, stall=0), clock, qps=(700.0,)))
    assert over.saturated
    assert not rows[0].saturated


def test_a_short_schedule_that_is_slow_by_chance_is_not_saturated() -> None:
    for seed in range(20):
        clock = VirtualClock()
        settings = {"qps": (20.0,), "seconds": 0.5, "min_queries": 1, "seed": seed}
        (row,) = SCENARIOS["server"](
            lab(Stalling(clock, work=MS // 10, stall=0), clock, **settings)
        )
        assert not row.saturated, f"{row.latency.qps:.0f} of {row.latency.arrived_qps:.0f} a second"


def test_the_highest_rate_within_a_bound_is_that_of_queueing_theory() -> None:
    """The waiting time of M/D/1 is known: at 2 ms per request, p99 is 10 ms at a load of 0.69."""
    clock = VirtualClock()
    peak = find_qps(
        lab(Stalling(clock, work=2 * MS, stall=0), clock, seconds=60.0, confidence=0.9), 10_000
    )
    arrivals = poisson(peak.qps or 0, Limits(3600.0, 1, 0), 5)
    exact = np.sort(Stalling(VirtualClock(), work=2 * MS, stall=0).latencies(arrivals))
    assert percentile(exact, 0.99) / 1000 == pytest.approx(10_000, rel=0.15)
    assert any(not kept for _, kept in peak.trials)
    assert find_qps(lab(Stalling(clock, work=2 * MS, stall=0), clock), 1000).qps is None
