"""The second driver: MLCommons LoadGen sees what ours sees."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tlrec_edge.bench import loadgen
from tlrec_edge.bench.drivers import Limits, closed_loop, open_loop, poisson
from tlrec_edge.cli import main

GOLDEN = str(Path(__file__).parent / "data" / "golden_bundle")
FAST = ["--seconds", "0.05", "--min-queries", "5", "--candidates", "2", "--load", "3", "--driver", "loadgen"]


def mixed(at: int) -> None:
    """Take 2 ms, every fifth request 4 ms."""
    time.sleep(0.004 if at % 5 == 0 else 0.002)


def test_loadgen_runs_every_scenario() -> None:
    done = CliRunner().invoke(main, ["bench", GOLDEN, "--qps", "100", "--json", *FAST])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert {row["scenario"] for row in rows} == {"single-stream", "top-k", "multi-stream", "server", "offline"}
    for row in rows:
        assert 0 < row["latency_us"]["p50"] <= row["latency_us"]["max"]
        assert row["queries"] > 0


def test_both_drivers_see_the_same_delay() -> None:
    limits = Limits(0.5, 20, 0.0)
    for seen in (
        loadgen.closed_loop(mixed, 50, limits, 0),
        closed_loop(mixed, 50, limits).describe(0.99),
        loadgen.open_loop(mixed, 50, 20.0, limits, 0),
        open_loop(mixed, 50, poisson(20.0, limits, 0), limits).describe(0.99),
    ):
        assert 2000 <= seen.us["p50"] < 6000
        assert seen.us["p90"] >= seen.us["p50"]


def test_it_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    done = CliRunner().invoke(main, ["bench", GOLDEN, *FAST])
    assert done.exit_code == 1
    assert "tlrec-edge[bench]" in done.stderr
    assert "start-up" not in done.stderr


def test_what_it_does_not_do_is_wrong_usage() -> None:
    for words in (("--processes", "2"), ("--find-qps", "--p99", "5ms")):
        assert CliRunner().invoke(main, ["bench", GOLDEN, *FAST, *words]).exit_code == 2


@pytest.mark.slow
def test_the_two_drivers_agree() -> None:
    """Medians of five runs each, in turns: 5 % on p50 and p90, 10 % on p99."""
    limits = Limits(4.0, 100, 0.2)
    runs = {
        "single-stream": (
            lambda seed: loadgen.closed_loop(mixed, 50, limits, seed),
            lambda seed: closed_loop(mixed, 50, limits).describe(0.99),
        ),
        "server": (
            lambda seed: loadgen.open_loop(mixed, 50, 100.0, limits, seed),
            lambda seed: open_loop(mixed, 50, poisson(100.0, limits, seed), limits).describe(0.99),
        ),
    }
    for name, (theirs, ours) in runs.items():
        seen = [(theirs(seed).us, ours(seed).us) for seed in range(5)]
        for tail, tolerance in (("p50", 0.05), ("p90", 0.05), ("p99", 0.1)):
            their, our = (statistics.median(pair[side][tail] for pair in seen) for side in (0, 1))
            assert our == pytest.approx(their, rel=tolerance), f"{name}, {tail}"
