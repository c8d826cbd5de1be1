"""A clock that no load can slow, and one measured start-up for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from helpers.systems import MS, TickingClock
from tlrec_edge.bench import compare_bundles, run_bench
from tlrec_edge.bench.noise import copy_bandwidth
from tlrec_edge.bench.startup import Startup, measure_startup


@pytest.fixture(scope="session", autouse=True)
def cheap_runs() -> Iterator[None]:
    """Let the command `bench` read a ticking clock, and measure start-up only once a session.

    Most of these tests are about what a run reports. A clock that moves on by a millisecond per
    reading makes runs of few requests, whose results depend neither on speed nor on load.
    """
    measured: list[Startup] = []

    def measure_once(bundle: Path, history: list[str], item: str, runs: int) -> Startup:
        if not measured:
            measured.append(measure_startup(bundle, history, item, 1))
        return measured[0]

    clock = TickingClock(MS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlrec_edge.bench.run.measure_startup", measure_once)
        patch.setattr("tlrec_edge.bench.run.copy_bandwidth", partial(copy_bandwidth, 1 << 20))
        patch.setattr("tlrec_edge.bench.noise._REPEATS", 30)
        patch.setattr("tlrec_edge.cli.bench.run_bench", partial(run_bench, clock=clock))
        patch.setattr("tlrec_edge.cli.bench.compare_bundles", partial(compare_bundles, clock=clock))
        yield
