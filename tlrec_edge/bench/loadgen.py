"""MLCommons LoadGen as the second driver: its arrivals, clock and percentiles, on the same system under test.

A scenario takes ``ask(numbers)``, which has the system answer those requests of the pool in one call. With one thread
the one that issues also answers, as in our drivers: handing a query to another takes some 30 microseconds in Python,
and counts as latency. CPU time is that of LoadGen too. All raise MissingExtraError where LoadGen is not installed.
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
"""Nanoseconds: a bound of latency that no run breaks, since LoadGen is asked for times and not for a verdict."""
_TRIAL_REQUESTS = 20


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
    """Run LoadGen's Server: Poisson arrivals, ``qps`` a second, answered by ``threads``."""
    settings = _settings("Server", limits, seed)
    settings.server_target_qps = qps
    settings.server_target_latency_ns = _UNREACHABLE_LATENCY
    return _run(settings, answer, pool, limits, threads=threads, wrap_issue=_wake_on_time)


def offline(
    answer: Answer, pool: int, limits: Limits, seed: int, batch: int, threads: int = 1
) -> Latencies:
    """Run LoadGen's Offline: all requests at once, ``batch`` in a call; each is timed from the start of the run."""
    settings = _settings("Offline", limits, seed)
    settings.offline_expected_qps = threads * batch / _expected_ns(answer, pool, batch) * 1e9
    return _run(settings, answer, pool, limits, query_size=batch, threads=threads)


def require() -> Any:
    """Return LoadGen's module. Raises MissingExtraError where it is not installed."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise MissingExtraError("--driver loadgen", "bench") from error
    return mlperf_loadgen


class _Workers:
    """Answer what LoadGen issues, ``query_size`` requests in a call; after an error nothing is asked any more.

    The requests are asked in turn, as by our drivers: those that LoadGen draws by lot were often asked not long before,
    so that a cache of users' states has half of them. A query that is not completed keeps LoadGen waiting for ever, so
    each is, whatever happened.
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
        """Requests; all of them are completed when LoadGen returns."""
        self.ended = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def issue(self, samples: Any) -> None:
        first = self._first + self.issued
        queries = [(sample.id, (first + at) % self._pool) for at, sample in enumerate(samples)]
        self.issued += len(queries)
        for at in range(0, len(queries), self._query_size):
            if self._threads:
                self._waiting.put(queries[at : at + self._query_size])
            else:
                self._answer(queries[at : at + self._query_size])

    def stop(self) -> None:
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
        self._loadgen.QuerySamplesComplete(
            [self._loadgen.QuerySampleResponse(key, 0, 0) for key, _ in queries]
        )
        self.ended = time.perf_counter()


@contextmanager
def _interruptible(workers: _Workers) -> Iterator[None]:
    """Have Ctrl-C end the answers, and so the run; a second one ends the process.

    Raised where it comes, it would pass through LoadGen, which ends the process with a core dump.
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
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = (
        seed + 1
    ) % 2**32
    return settings


def _expected_ns(answer: Answer, pool: int, query_size: int) -> int:
    """Return about how many nanoseconds a call of ``query_size`` requests takes, from which LoadGen plans its run."""
    calls, started = math.ceil(_TRIAL_REQUESTS / query_size), time.perf_counter()
    for at in range(calls):
        answer([(at * query_size + i) % pool for i in range(query_size)])
    return max(1, int((time.perf_counter() - started) / calls * 1e9))


def _wake_on_time(issue: Issue) -> Issue:
    """Have LoadGen's thread wake on time for its next query: it sleeps until then, and counts what it overslept."""

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
    arrived = _number(summary, "Scheduled samples per second")  # of Server alone
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
