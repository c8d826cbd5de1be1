"""MLCommons LoadGen as the second driver: its arrivals, clock and percentiles, on the same system under test."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tlrec_edge.bench.drivers import Call, Limits, warm_up
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.errors import MissingExtraError

_TAILS = {"50.00": "p50", "90.00": "p90", "99.00": "p99", "99.90": "p99.9"}
_PATIENT = 3_600_000_000_000
"""Nanoseconds: a bound of latency that no run breaks, since LoadGen is asked for times and not for a verdict."""


def closed_loop(call: Call, pool: int, limits: Limits, seed: int) -> Latencies:
    """Run LoadGen's SingleStream. Raises MissingExtraError where LoadGen is not installed."""
    loadgen = require()
    started = time.perf_counter()
    for at in range(_TRIED):
        call(at % pool)
    settings = _settings(loadgen, "SingleStream", limits, seed)
    settings.single_stream_expected_latency_ns = max(1, int((time.perf_counter() - started) / _TRIED * 1e9))

    def issue(samples: Any) -> None:
        _answer(loadgen, call, samples)

    return _run(loadgen, settings, issue, call, pool, limits)


def open_loop(call: Call, pool: int, qps: float, limits: Limits, seed: int, threads: int = 1) -> Latencies:
    """Run LoadGen's Server at ``qps``; ``threads`` answer. Raises MissingExtraError where LoadGen is not installed."""
    loadgen = require()
    settings = _settings(loadgen, "Server", limits, seed)
    settings.server_target_qps = qps
    settings.server_target_latency_ns = _PATIENT
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        while (samples := waiting.get()) is not None:
            _answer(loadgen, call, samples)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        return _run(loadgen, settings, waiting.put, call, pool, limits)
    finally:
        for _ in workers:
            waiting.put(None)
        for worker in workers:
            worker.join()


_TRIED = 20


def require() -> Any:
    """Return LoadGen's module. Raises MissingExtraError where it is not installed."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise MissingExtraError("--driver loadgen", "bench") from error
    return mlperf_loadgen


def _settings(loadgen: Any, scenario: str, limits: Limits, seed: int) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(limits.seconds * 1000))
    settings.max_duration_ms = max(1, round(5 * limits.seconds * 1000))
    settings.min_query_count = limits.min_queries
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = seed + 1
    return settings


def _answer(loadgen: Any, call: Call, samples: Any) -> None:
    for sample in samples:
        call(sample.index)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])


def _run(
    loadgen: Any, settings: Any, issue: Callable[[Any], None], call: Call, pool: int, limits: Limits
) -> Latencies:  # fmt: skip
    warm_up(call, pool, limits.warmup)
    sut = loadgen.ConstructSUT(issue, _nothing)
    qsl = loadgen.ConstructQSL(pool, pool, _nothing, _nothing)
    try:
        with TemporaryDirectory(prefix="tlrec-loadgen-") as folder:
            logs = loadgen.LogSettings()
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            cpu, started = time.process_time(), time.perf_counter()
            loadgen.StartTestWithLogSettings(sut, qsl, settings, logs, str(Path(folder) / "audit.config"))
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text("utf-8")
            detail = (Path(folder) / "mlperf_log_detail.txt").read_text("utf-8")
    finally:
        loadgen.DestroyQSL(qsl)
        loadgen.DestroySUT(sut)
    us = {name: _number(summary, rf"{tail} percentile latency \(ns\)") / 1000 for tail, name in _TAILS.items()}
    queries = int(_number(detail, r'"key": "result_query_count", "value"'))
    return Latencies(queries, seconds, cpu, us | {"max": _number(summary, r"Max latency \(ns\)") / 1000})


def _number(text: str, name: str) -> float:
    found = re.search(rf"{name}\s*: ([\d.]+)", text)
    return float(found[1]) if found else float("nan")


def _nothing(*_: Any) -> None: ...
