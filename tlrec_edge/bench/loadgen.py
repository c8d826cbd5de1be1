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
from tlrec_edge.bench.config import LONGEST
from tlrec_edge.bench.drivers import Limits, warm_up
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.errors import MissingExtraError

Ask = Callable[[Sequence[int]], object]
Issue = Callable[[Any], None]
_TAILS = {"50.00": "p50", "90.00": "p90", "99.00": "p99", "99.90": "p99.9"}
_PATIENT = 3_600_000_000_000
"""Nanoseconds: a bound of latency that no run breaks, since LoadGen is asked for times and not for a verdict."""
_TRIED = 20


def single_stream(ask: Ask, pool: int, limits: Limits, seed: int) -> Latencies:
    """Run LoadGen's SingleStream: one request after another."""
    settings = _settings("SingleStream", limits, seed)
    settings.single_stream_expected_latency_ns = _expected(ask, pool, 1)
    return _run(settings, ask, pool, limits)


def multi_stream(ask: Ask, pool: int, limits: Limits, seed: int, streams: int) -> Latencies:
    """Run LoadGen's MultiStream: queries of ``streams`` requests, one after another."""
    settings = _settings("MultiStream", limits.of_many(streams), seed)
    settings.multi_stream_expected_latency_ns = _expected(ask, pool, streams)
    settings.multi_stream_samples_per_query = streams
    seen = _run(settings, ask, pool, limits, each=streams)
    return replace(seen, queries=seen.samples // streams)


def server(ask: Ask, pool: int, limits: Limits, seed: int, qps: float, threads: int = 1) -> Latencies:
    """Run LoadGen's Server: Poisson arrivals, ``qps`` a second, answered by ``threads``."""
    settings = _settings("Server", limits, seed)
    settings.server_target_qps = qps
    settings.server_target_latency_ns = _PATIENT
    return _run(settings, ask, pool, limits, threads=threads, around=_punctual)


def offline(ask: Ask, pool: int, limits: Limits, seed: int, batch: int, threads: int = 1) -> Latencies:
    """Run LoadGen's Offline: all requests at once, ``batch`` in a call; each is timed from the start of the run."""
    settings = _settings("Offline", limits, seed)
    settings.offline_expected_qps = threads * batch / _expected(ask, pool, batch) * 1e9
    return _run(settings, ask, pool, limits, each=batch, threads=threads)


def require() -> Any:
    """Return LoadGen's module. Raises MissingExtraError where it is not installed."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise MissingExtraError("--driver loadgen", "bench") from error
    return mlperf_loadgen


class _Workers:
    """Answer what LoadGen issues, ``each`` requests in a call; after an error nothing is asked any more.

    The requests are asked in turn, as by our drivers: those that LoadGen draws by lot were often asked not long before,
    so that a cache of users' states has half of them. A query that is not completed keeps LoadGen waiting for ever, so
    each is, whatever happened.
    """

    def __init__(self, ask: Ask, pool: int, first: int, each: int, threads: int) -> None:
        self._loadgen, self._ask, self._pool, self._first, self._each = require(), ask, pool, first, each
        self._waiting: queue.SimpleQueue[list[tuple[int, int]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads if threads > 1 else 0)]
        self.error: BaseException | None = None
        self.issued = 0
        """Requests; all of them are completed when LoadGen returns."""
        self.ended = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def issue(self, samples: Any) -> None:
        first = self._first + self.issued
        asked = [(sample.id, (first + at) % self._pool) for at, sample in enumerate(samples)]
        self.issued += len(asked)
        for at in range(0, len(asked), self._each):
            if self._threads:
                self._waiting.put(asked[at : at + self._each])
            else:
                self._answer(asked[at : at + self._each])

    def stop(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (asked := self._waiting.get()) is not None:
            self._answer(asked)

    def _answer(self, asked: list[tuple[int, int]]) -> None:
        try:
            if self.error is None:
                self._ask([number for _, number in asked])
        except BaseException as error:
            self.error = error
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(key, 0, 0) for key, _ in asked])
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
    settings.max_duration_ms = max(1, round(LONGEST * limits.seconds * 1000))
    settings.min_query_count = limits.min_queries
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = (seed + 1) % 2**32
    return settings


def _expected(ask: Ask, pool: int, each: int) -> int:
    """Return about how many nanoseconds a call of ``each`` requests takes, from which LoadGen plans its run."""
    calls, started = math.ceil(_TRIED / each), time.perf_counter()
    for at in range(calls):
        ask([(at * each + i) % pool for i in range(each)])
    return max(1, int((time.perf_counter() - started) / calls * 1e9))


def _punctual(issue: Issue) -> Issue:
    """Have LoadGen's thread wake on time for its next query: it sleeps until then, and counts what it overslept."""

    def issue_and_wake(samples: Any) -> None:
        set_timer_slack(0)
        issue(samples)
        set_timer_slack(1)

    return issue_and_wake


def _run(
    settings: Any, ask: Ask, pool: int, limits: Limits, *, each: int = 1, threads: int = 1,
    around: Callable[[Issue], Issue] = lambda issue: issue,
) -> Latencies:  # fmt: skip
    loadgen = require()
    last = warm_up(lambda at: ask([at]), pool, limits.warmup)
    workers = _Workers(ask, pool, last + 1, each, threads)
    sut = loadgen.ConstructSUT(around(workers.issue), _nothing)
    qsl = loadgen.ConstructQSL(pool, pool, _nothing, _nothing)
    try:
        with TemporaryDirectory(prefix="tlrec-loadgen-") as folder, _interruptible(workers):
            logs = loadgen.LogSettings()
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            cpu, started = time.process_time(), time.perf_counter()
            loadgen.StartTestWithLogSettings(sut, qsl, settings, logs, str(Path(folder) / "audit.config"))
            cpu = time.process_time() - cpu
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text("utf-8")
    finally:
        set_timer_slack(0)
        workers.stop()
        loadgen.DestroyQSL(qsl)
        loadgen.DestroySUT(sut)
    if workers.error is not None:
        raise workers.error
    us = {name: _number(summary, rf"{tail} percentile latency \(ns\)") / 1000 for tail, name in _TAILS.items()}
    us["max"] = _number(summary, r"Max latency \(ns\)") / 1000
    arrived = _number(summary, "Scheduled samples per second")  # of Server alone
    return Latencies(
        workers.issued, workers.ended - started, cpu, us, samples=workers.issued,
        arrived_qps=None if math.isnan(arrived) else arrived,
    )  # fmt: skip


def _number(text: str, name: str) -> float:
    found = re.search(rf"{name}\s*: ([\d.]+)", text)
    return float(found[1]) if found else float("nan")


def _nothing(*_: Any) -> None: ...
