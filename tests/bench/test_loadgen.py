"""The second driver, MLCommons LoadGen, measures what ours measures."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from click.testing import CliRunner

from helpers.paths import GOLDEN
from tlrec_edge import DataError
from tlrec_edge.bench import loadgen
from tlrec_edge.bench.drivers import Limits, closed_loop, open_loop, poisson
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.cli import main

FAST = [
    "--seconds",
    "0.05",
    "--min-queries",
    "5",
    "--candidates",
    "2",
    "--load",
    "3",
    "--driver",
    "loadgen",
]


def mixed(at: int) -> None:
    """Take at least 2 ms, every fifth request 4 ms."""
    time.sleep(0.004 if at % 5 == 0 else 0.002)


def answer(numbers: Sequence[int]) -> None:
    for at in numbers:
        mixed(at)


def test_loadgen_runs_every_scenario() -> None:
    done = CliRunner().invoke(main, ["bench", str(GOLDEN), "--qps", "100", "--json", *FAST])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert {row["scenario"] for row in rows} == {
        "single-stream",
        "top-k",
        "multi-stream",
        "server",
        "offline",
    }
    for row in rows:
        assert 0 < row["latency_us"]["p50"] <= row["latency_us"]["max"]
        assert row["queries"] > 0


def test_both_drivers_measure_the_same_delay() -> None:
    limits = Limits(0.5, 20, 0.0)
    runs: tuple[tuple[bool, Callable[[], Latencies]], ...] = (
        (True, lambda: loadgen.single_stream(answer, 50, limits, 0)),
        (True, lambda: closed_loop(mixed, 50, limits).describe(0.99)),
        (False, lambda: loadgen.server(answer, 50, limits, 0, 20.0)),
        (False, lambda: open_loop(mixed, 50, poisson(20.0, limits, 0), limits).describe(0.99)),
    )
    for one_by_one, drive in runs:
        before = time.perf_counter()
        seen = drive()
        took = (time.perf_counter() - before) * 1e6
        assert 2000 <= seen.us["p50"] <= seen.us["p90"] <= seen.us["max"] <= took
        # A slow machine makes requests and the run longer. One by one, half of the requests take
        # the median or more.
        assert not one_by_one or seen.us["p50"] * (seen.queries // 2) <= took


def test_both_drivers_send_at_the_same_moments() -> None:
    for seed, queries in ((3, 2), (3, 20), (3, 60), (4, 30)):
        seen = loadgen.server(lambda numbers: None, 8, Limits(0.1, queries, 0.0), seed, 200.0)
        due = poisson(200.0, Limits(60.0, 1, 0.0), seed)[seen.queries - 1] / 1e9
        # LoadGen reports the rate of its schedule: the number of gaps over the last query's time.
        assert seen.arrived_qps == pytest.approx((seen.queries - 1) / due, abs=0.01)


def test_a_query_of_several_requests_is_one_call() -> None:
    calls: list[int] = []
    seen = loadgen.multi_stream(
        lambda numbers: calls.append(len(numbers)), 8, Limits(0.05, 50, 0.0), 0, 5
    )
    assert seen.samples == 5 * seen.queries >= 50
    assert calls[-seen.queries :] == [5] * seen.queries


@pytest.mark.parametrize("threads", [1, 2])
def test_offline_is_throughput_of_all_threads(threads: int) -> None:
    together, waited = threading.Barrier(threads), threading.local()

    def call(numbers: Sequence[int]) -> None:
        # The first call of each thread ends only if as many run at the same time.
        if threading.current_thread() is not threading.main_thread() and not hasattr(
            waited, "once"
        ):
            waited.once = True
            together.wait(60)
        time.sleep(0.01)

    before = time.perf_counter()
    seen = loadgen.offline(call, 50, Limits(0.3, 1, 0.0), 0, 4, threads)
    took = time.perf_counter() - before
    assert seen.samples / took <= seen.qps <= 400 * threads


@pytest.mark.parametrize("threads", [1, 2])
def test_a_system_that_fails_ends_the_run(threads: int) -> None:
    sent: list[int] = []

    def fail(numbers: Sequence[int]) -> None:
        sent.extend(numbers)
        if len(sent) > 20:
            raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        loadgen.server(fail, 8, Limits(0.2, 50, 0.0), 0, 200.0, threads)
    assert len(sent) <= 20 + threads


def test_a_missing_loadgen_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    done = CliRunner().invoke(main, ["bench", str(GOLDEN), *FAST])
    assert done.exit_code == 1
    assert "tlrec-edge[bench]" in done.stderr
    assert "start-up" not in done.stderr


def test_options_that_loadgen_lacks_are_wrong_usage() -> None:
    for words in (("--processes", "2"), ("--find-qps", "--p99", "5ms")):
        assert CliRunner().invoke(main, ["bench", str(GOLDEN), *FAST, *words]).exit_code == 2


@pytest.mark.slow
def test_the_two_drivers_agree() -> None:
    """Medians of alternating runs agree within 5 % on p50 and p90, and 10 % on p99."""
    # Sleeps take as long on a busy machine, and no percentile falls into a gap between times.
    slept = np.random.default_rng(0).lognormal(np.log(0.005), 0.5, 512).tolist()
    limits = Limits(6.0, 100, 0.1)

    def call(at: int) -> None:
        time.sleep(slept[at])

    def called(numbers: Sequence[int]) -> None:
        call(numbers[0])

    Run = Callable[[int], Latencies]
    runs: dict[str, tuple[Run, Run]] = {
        "single-stream": (
            lambda seed: loadgen.single_stream(called, 512, limits, seed),
            lambda seed: closed_loop(call, 512, limits).describe(0.99),
        ),
        "server": (
            lambda seed: loadgen.server(called, 512, limits, seed, 50.0),
            lambda seed: open_loop(call, 512, poisson(50.0, limits, seed), limits).describe(0.99),
        ),
    }
    for name, (theirs, ours) in runs.items():
        seen = [(theirs(seed).us, ours(seed).us) for seed in range(9)]
        for tail, tolerance in (("p50", 0.05), ("p90", 0.05), ("p99", 0.1)):
            their, our = (statistics.median(pair[side][tail] for pair in seen) for side in (0, 1))
            assert our == pytest.approx(their, rel=tolerance), f"{name}, {tail}"
