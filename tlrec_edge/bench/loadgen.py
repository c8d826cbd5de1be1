"""MLCommons LoadGen as the second driver: its arrivals, clock and percentiles, on the same system.

A scenario gets a function ``answer(numbers)``, which lets the system answer these requests of the
pool in one call. With one thread, LoadGen's own thread calls it, as in the native driver: passing a
query to another thread takes some 30 microseconds in Python, which would count as latency. CPU time
includes LoadGen's. All scenarios raise MissingExtraError if LoadGen is not installed.
"""

from __future__ import annotations

import math
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tlrec_edge.bench.clock import set_timer_slack
from tlrec_edge.bench.config import MAX_DURATION_FACTOR
from tlrec_edge.bench.drivers import Limits, warm_up
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.errors import MissingExtraError

Answer = Callable[[Sequence[int]], object]
Issue = Callable[[Any], None]
_PERCENTILE_NAMES = {"50.00": "p50", "90.00": "p90", "99.00": "p99", "99.90": "p99.9"}
_UNREACHABLE_LATENCY = 3_600_000_000_000
"""A latency bound in nanoseconds that every run keeps: only LoadGen's times are used."""
_TRIAL_REQUESTS = 20
"""Requests sent before a run, from which LoadGen plans its length."""


def single_stream(answer: Answer, pool: int, limits: Limits, seed: int) -> Latencies:
    """Run LoadGen's SingleStream: one request after another."""
    settings = _settings("SingleStream", limits, seed)
    settings.single_stream_expected_latency_ns = _expected_ns(answer, pool, 1)
    return _run(settings, answer, pool, limits)


def multi_stream(answer: Answer, pool: int, limits: Limits, seed: int, streams: int) -> Latencies:
    """Run LoadGen's MultiStream: queries of ``streams`` requests, one after another."""
    settings = _settings("MultiStream", limits.for_query_size(streams), seed)
    settings.multi_stream_expected_latency_ns = _expected_ns(answer, pool, streams)
    settings.multi_stream_samples_per_query = streams
    latencies = _run(settings, answer, pool, limits, query_size=streams)
    return replace(latencies, queries=latencies.samples // streams)


def server(
    answer: Answer, pool: int, limits: Limits, seed: int, qps: float, threads: int = 1
) -> Latencies:
    """Run LoadGen's Server: Poisson arrivals at ``qps`` per second, answered by ``threads``."""
    settings = _settings("Server", limits, seed)
    settings.server_target_qps = qps
    settings.server_target_latency_ns = _UNREACHABLE_LATENCY
    return _run(settings, answer, pool, limits, threads=threads, wrap_issue=_wake_on_time)


def offline(
    answer: Answer, pool: int, limits: Limits, seed: int, batch: int, threads: int = 1
) -> Latencies:
    """Run LoadGen's Offline: all requests at once, ``batch`` in each call.

    Each request is timed from the start of the run.
    """
    settings = _settings("Offline", limits, seed)
    settings.offline_expected_qps = threads * batch / _expected_ns(answer, pool, batch) * 1e9
    return _run(settings, answer, pool, limits, query_size=batch, threads=threads)


def require() -> Any:
    """Return LoadGen's module. Raises MissingExtraError if it is not installed."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise MissingExtraError("--driver loadgen", "bench") from error
    return mlperf_loadgen


class _Workers:
    """Answer the queries of LoadGen, ``query_size`` requests per call, until an error occurs.

    Requests are taken from the pool in turn, as the native driver does. LoadGen itself would draw
    them at random and soon repeat some, whose user states would still be in the cache.
    """

    def __init__(
        self, answer: Answer, pool: int, first: int, query_size: int, threads: int
    ) -> None:
        self._loadgen, self._answer_batch, self._query_size = require(), answer, query_size
        self._pool, self._first = pool, first
        self._waiting: queue.SimpleQueue[list[tuple[int, int]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(threads if threads > 1 else 0)
        ]
        self.error: BaseException | None = None
        self.issued = 0
        """Number of requests; all of them are completed when LoadGen returns."""
        self.ended = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def issue(self, samples: Any) -> None:
        """Answer samples, or queue them for the threads."""
        first, handle = (
            self._first + self.issued,
            self._waiting.put if self._threads else self._answer,
        )
        queries = [(sample.id, (first + at) % self._pool) for at, sample in enumerate(samples)]
        self.issued += len(queries)
        for at in range(0, len(queries), self._query_size):
            handle(queries[at : at + self._query_size])

    def stop(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (queries := self._waiting.get()) is not None:
            self._answer(queries)

    def _answer(self, queries: list[tuple[int, int]]) -> None:
        try:
            if self.error is None:
                self._answer_batch([number for _, number in queries])
        except BaseException as error:
            self.error = error
        # LoadGen waits for ever for a query that is not completed: complete failed ones too.
        responses = [self._loadgen.QuerySampleResponse(key, 0, 0) for key, _ in queries]
        self._loadgen.QuerySamplesComplete(responses)
        self.ended = time.perf_counter()


@contextmanager
def _interruptible(workers: _Workers) -> Iterator[None]:
    """Let Ctrl-C end the answers, and so the run; a second one ends the process.

    A KeyboardInterrupt that passes through LoadGen would end the process with a core dump.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        workers.error = workers.error or KeyboardInterrupt()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _settings(scenario: str, limits: Limits, seed: int) -> Any:
    loadgen = require()
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(limits.seconds * 1000))
    settings.max_duration_ms = max(1, round(MAX_DURATION_FACTOR * limits.seconds * 1000))
    settings.min_query_count = limits.min_queries
    positive_seed = (seed + 1) % 2**32
    settings.qsl_rng_seed = settings.sample_index_rng_seed = positive_seed
    settings.schedule_rng_seed = positive_seed
    return settings


def _expected_ns(answer: Answer, pool: int, query_size: int) -> int:
    """Return roughly how many nanoseconds a call of ``query_size`` requests takes."""
    calls, started = math.ceil(_TRIAL_REQUESTS / query_size), time.perf_counter()
    for at in range(calls):
        answer([(at * query_size + i) % pool for i in range(query_size)])
    return max(1, int((time.perf_counter() - started) / calls * 1e9))


def _wake_on_time(issue: Issue) -> Issue:
    """Let LoadGen's thread wake on time: what it oversleeps counts as latency of its next query."""

    def issue_and_wake(samples: Any) -> None:
        set_timer_slack(0)
        issue(samples)
        set_timer_slack(1)

    return issue_and_wake


def _run(
    settings: Any,
    answer: Answer,
    pool: int,
    limits: Limits,
    *,
    query_size: int = 1,
    threads: int = 1,
    wrap_issue: Callable[[Issue], Issue] = lambda issue: issue,
) -> Latencies:
    loadgen = require()
    last = warm_up(lambda at: answer([at]), pool, limits.warmup)
    workers = _Workers(answer, pool, last + 1, query_size, threads)
    sut = loadgen.ConstructSUT(wrap_issue(workers.issue), _no_op)
    qsl = loadgen.ConstructQSL(pool, pool, _no_op, _no_op)
    try:
        with TemporaryDirectory(prefix="tlrec-loadgen-") as folder, _interruptible(workers):
            logs = loadgen.LogSettings()
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            cpu, started = time.process_time(), time.perf_counter()
            loadgen.StartTestWithLogSettings(
                sut, qsl, settings, logs, str(Path(folder) / "audit.config")
            )
            cpu = time.process_time() - cpu
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text("utf-8")
    finally:
        set_timer_slack(0)
        workers.stop()
        loadgen.DestroyQSL(qsl)
        loadgen.DestroySUT(sut)
    if workers.error is not None:
        raise workers.error
    us = {
        name: _number(summary, rf"{tail} percentile latency \(ns\)") / 1000
        for tail, name in _PERCENTILE_NAMES.items()
    }
    us["max"] = _number(summary, r"Max latency \(ns\)") / 1000
    arrived = _number(summary, "Scheduled samples per second")  # only Server states it
    return Latencies(
        workers.issued,
        workers.ended - started,
        cpu,
        us,
        samples=workers.issued,
        arrived_qps=None if math.isnan(arrived) else arrived,
    )


def _number(text: str, name: str) -> float:
    found = re.search(rf"{name}\s*: ([\d.]+)", text)
    return float(found[1]) if found else float("nan")


def _no_op(*_: Any) -> None: ...
