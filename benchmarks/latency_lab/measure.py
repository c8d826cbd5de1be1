"""Check the lab on systems whose latency is known, in many runs; every run is printed.

stall    requests of 2 ms and a stall of 200 ms every second: p99 of an open and a closed loop.
drivers  our driver and MLCommons LoadGen on one system: medians of the runs' percentiles.
compare  a bundle with itself, and with itself made 10 % slower.
plan     latency and memory of a million items, predicted from 50,000 to 200,000.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tlrec_edge.bench import loadgen
from tlrec_edge.bench.compare import compare
from tlrec_edge.bench.drivers import Limits, closed_loop, open_loop, poisson
from tlrec_edge.bench.latency import percentile
from tlrec_edge.bench.noise import NoiseMeter
from tlrec_edge.bench.plan import Workload, make_plan, measure_size
from tlrec_edge.bench.requests import ItemIds, Requests
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bench.system import BundleSource, Request, Source
from tlrec_edge.bundle.reader import Bundle

MS = 1_000_000
POOL = 512
DRIVERS = ("ours", "LoadGen")


def stalled(start: int) -> int:
    """Return the end of a request that starts at ``start``: 2 ms of work, except in a stall."""
    since = start % (1000 * MS)
    start += max(0, 200 * MS - since)
    return start + 2 * MS + (200 * MS if start % (1000 * MS) + 2 * MS >= 1000 * MS else 0)


def true_p99(qps: float, seconds: float) -> float:
    """Return p99 of the queue in ms: one server, requests in order, for a very long time."""
    free, waits = 0, []
    for arrival in poisson(qps, Limits(seconds, 1, 0), 12345):
        free = stalled(max(free, arrival))
        waits.append(free - arrival)
    return percentile(sorted(waits), 0.99) / MS


def stall(runs: int, seconds: float) -> None:
    truth = true_p99(100.0, 3600.0)
    print(f"truth: p99 {truth:.1f} ms")
    errors = []
    for run in range(runs):
        started, meter = time.perf_counter_ns(), NoiseMeter()

        def call(at: int, started: int = started) -> None:
            now = time.perf_counter_ns() - started
            time.sleep(max(0, stalled(now) - now) / 1e9)

        limits = Limits(seconds, 1, 0.0)
        opened = (
            open_loop(call, 8, poisson(100.0, limits, run), limits).describe(0.99).us["p99"] / 1000
        )
        closed = closed_loop(call, 8, Limits(seconds / 4, 1, 0.0)).describe(0.99).us["p99"] / 1000
        errors.append(opened / truth - 1)
        print(
            f"run {run}: server {opened:.1f} ms ({errors[-1]:+.1%}), "
            f"closed loop {closed:.1f} ms{_flag(meter)}"
        )
    within = sum(abs(error) <= 0.05 for error in errors)
    print(f"server p99 within 5 % of the truth in {within} of {runs} runs")


def drivers(runs: int, seconds: float) -> None:
    # A busy machine does not prolong sleeps much; a continuum of times has no gap at a percentile.
    slept = np.random.default_rng(0).lognormal(np.log(0.005), 0.5, POOL).tolist()
    print("a request takes 5 ms in the median, 16 ms in a hundredth")
    agree(runs, seconds, 50.0, lambda at: time.sleep(slept[at]))
    print("a request takes nothing: what a driver adds")
    agree(runs, seconds / 10, 50.0, lambda at: None)


def agree(runs: int, seconds: float, qps: float, call: Callable[[int], object]) -> None:
    """Print the medians of both drivers' percentiles; the drivers take turns in being first."""
    limits, longer = Limits(seconds, 100, 0.1), Limits(2 * seconds, 100, 0.1)
    pairs: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
        "single-stream": (
            lambda seed: closed_loop(call, POOL, limits).describe(0.99),
            lambda seed: loadgen.single_stream(
                lambda numbers: call(numbers[0]), POOL, limits, seed
            ),
        ),
        f"server at {qps:g} a second": (
            lambda seed: open_loop(call, POOL, poisson(qps, longer, seed), longer).describe(0.99),
            lambda seed: loadgen.server(lambda numbers: call(numbers[0]), POOL, longer, seed, qps),
        ),
    }
    for name, both in pairs.items():
        meter = NoiseMeter()
        seen: tuple[list[dict[str, float]], ...] = ([], [])
        for run in range(runs):
            for side in (0, 1) if run % 2 else (1, 0):
                seen[side].append(both[side](run).us)
            last = (
                f"{side} {us[-1]['p50']:,.0f}, {us[-1]['p99']:,.0f}"
                for side, us in zip(DRIVERS, seen, strict=True)
            )
            print(f"{name}, run {run}: p50, p99: {'; '.join(last)} us", flush=True)
        for tail in ("p50", "p90", "p99"):
            ours, theirs = (statistics.median(us[tail] for us in side) for side in seen)
            print(
                f"{name}, {tail}: ours {ours:,.0f} us, LoadGen {theirs:,.0f} us "
                f"({ours / theirs - 1:+.1%})"
            )
        print(f"{name}: medians of {runs} runs{_flag(meter)}")


@dataclass(frozen=True)
class Slower:
    """Another system that takes ``by`` times longer, as busy as before."""

    inner: Source
    by: float
    name: str = "slower"

    @contextmanager
    def open(self) -> Iterator[Any]:
        with self.inner.open() as system:
            by, clock = self.by, time.perf_counter_ns

            class Busy:
                def answer(self, requests: Sequence[Request]) -> None:
                    start = clock()
                    system.answer(requests)
                    end = clock() + by * (clock() - start)
                    while clock() < end:
                        pass

            yield Busy()


def compared(runs: int, seconds: float, bundle: Path) -> None:
    drawn = Requests(ItemIds.from_bundle(Bundle.open(bundle)), POOL, 1.0, 0)
    candidates = drawn.candidates(min(100, drawn.ids.candidates))
    requests = [
        Request(user, items) for user, items in zip(drawn.histories, candidates, strict=True)
    ]
    source, limits = BundleSource(bundle, POOL // 2), Limits(seconds, 1, min(0.2, seconds))
    for name, other, verdict in (
        ("itself", source, "no difference shown"),
        ("10 % slower", Slower(source, 0.1), "slower"),
    ):
        right, widths = 0, []
        for run in range(runs):
            meter = NoiseMeter()
            found = compare(source, other, name, requests, limits, run)
            right += found.verdict == verdict
            widths.append((found.high - found.low) / found.ratio)
            print(
                f"{name}, run {run}: {found.ratio:.4f} "
                f"[{found.low:.4f}, {found.high:.4f}]{_flag(meter)}"
            )
        print(
            f"{name}: {verdict!r} in {right} of {runs} runs; "
            f"intervals at most {max(widths):.1%} wide"
        )


def planned(runs: int, seconds: float) -> None:
    wanted, errors = Workload(1_000_000, 64, 1.0, 60e6), []
    with TemporaryDirectory() as folder:
        bundles = [
            synthesize(Path(folder) / str(items), SynthConfig(items, lists_beyond=0)).path
            for items in (50_000, 100_000, 200_000, wanted.items)
        ]
        for run in range(runs):
            meter = NoiseMeter()
            *small, large = (measure_size(bundle, seconds, run) for bundle in bundles)
            predicted = make_plan(wanted, small).figures
            errors.append({name: predicted[name] / large.figures[name] - 1 for name in predicted})
            p50, measured = predicted["top_k_us"], large.figures["top_k_us"]
            found = f"{p50:,.0f} us predicted, {measured:,.0f} measured"
            shown = ", ".join(f"{name} {error:+.1%}" for name, error in errors[-1].items())
            print(f"run {run}: {found}; {shown}{_flag(meter)}", flush=True)
    for name, bar in (("top_k_us", 0.25), ("memory_bytes", 0.05)):
        within = sum(abs(error[name]) <= bar for error in errors)
        print(f"{name} within {bar:.0%} of what was measured in {within} of {runs} runs")


def _flag(meter: NoiseMeter) -> str:
    noise = meter.stop()
    return f"  NOISY: {noise}" if noise.noisy else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=["stall", "drivers", "compare", "plan"])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=None, help="of a run; of a round in compare"
    )
    parser.add_argument("--bundle", type=Path, help="for compare")
    given = parser.parse_args(arguments)
    if given.question == "compare":
        if given.bundle is None:
            parser.error("compare needs --bundle")
        compared(given.runs, given.seconds or 0.4, given.bundle)
    else:
        check, default = {
            "stall": (stall, 10.0),
            "drivers": (drivers, 10.0),
            "plan": (planned, 1.0),
        }[given.question]
        check(given.runs, given.seconds or default)


if __name__ == "__main__":
    main()
