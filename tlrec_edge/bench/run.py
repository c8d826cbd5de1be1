"""One benchmark run: every scenario on one system."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tlrec_edge.bench import loadgen
from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.cost_estimate import CostEstimate
from tlrec_edge.bench.describe import bytes_by_group, compression_points, describe_system
from tlrec_edge.bench.lab import Lab
from tlrec_edge.bench.latency import PERCENTILES
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.noise import NoiseMeter, copy_bandwidth
from tlrec_edge.bench.requests import AnyRequests, ItemIds, Replay, Requests
from tlrec_edge.bench.result import BenchResult, MaxThroughput, Row
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.search import find_qps
from tlrec_edge.bench.startup import Startup, measure_startup
from tlrec_edge.bench.system import BundleSource, BundleSystem, Request, Source, System
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import DataError

_DEFAULT = BenchConfig()
_GENERATED_ITEMS = 10_000


def run_bench(
    path: str | os.PathLike[str] | None,
    config: BenchConfig = _DEFAULT,
    scenarios: Sequence[str] = tuple(SCENARIOS),
    progress: Callable[[str], None] = lambda line: None,
    *,
    source: Source | None = None,
    replay: Path | None = None,
    items: int = _GENERATED_ITEMS,
    p99_us: float | None = None,
    price: float | None = None,
    target_load: float | None = None,
    clock: Clock = WALL,
) -> BenchResult:
    """Measure a bundle on this machine: latency, throughput, start-up, memory and size.

    Numbers of candidates above the size of the catalogue are left out, and the result's ``notes``
    name them.

    Args:
        path: Folder of the bundle. None measures ``source`` with generated item ids.
        config: Settings of the run.
        scenarios: Names from ``SCENARIOS``, in the order to run them.
        progress: Called with a line of text before each step.
        source: System to measure instead of the bundle; the requests hold the bundle's item ids.
        replay: File of requests to send instead of generated ones.
        items: Number of generated ids (item-0, item-1, ...), used if ``path`` is None.
        p99_us: Bound of p99 in microseconds; finds the highest request rate that keeps it.
        price: Price of this machine per hour, to estimate the cost of a million requests.
        target_load: Requests per second to serve, to estimate the number of machines.
        clock: Clock that times requests; tests replace it.

    Returns:
        The measurements. ``to_json`` returns what ``tlrec-edge bench --out`` writes.

    Raises:
        BundleError: If the bundle can't be opened, or a pair scores differently alone and in a
            list.
        DataError: If no system is given, every number of candidates exceeds the catalogue, the
            requests can't be read, or the system fails on a request.
        MissingExtraError: If the driver is ``"loadgen"`` and LoadGen is not installed.

    Example:
        >>> config = BenchConfig(candidates=(1,), seconds=0.1, starts=1)
        >>> result = run_bench("bundle", config, ["top-k"])
        >>> [row.scenario for row in result.rows]
        ['top-k', 'top-k']
    """
    if config.driver == "loadgen":
        loadgen.require()
    bundle = None if path is None else Bundle.open(path)
    ids = ItemIds.generated(items) if bundle is None else ItemIds.from_bundle(bundle)
    config, notes = _limit_candidates(config, ids.candidates)
    meter = NoiseMeter()
    generated = Requests(ids, config.pool, config.zipf, config.seed)
    requests: AnyRequests = generated if replay is None else Replay(replay, generated)
    startup = files = None
    if bundle is not None and source is None:
        progress("start-up: fresh processes")
        startup, files = _startup(bundle, requests, config), bytes_by_group(bundle)
    description = describe_system(bundle, source, requests)
    source = source or _bundle_source(bundle, requests)
    rows: list[Row] = []
    with source.open() as system:
        config, cache_notes = _check_cold(config, system, requests)
        lab = Lab(source, system, requests, config, clock)
        for name in scenarios:
            progress(f"{name}: each shape for {config.seconds:g} s")
            rows.extend(SCENARIOS[name](lab))
        max_throughput = None if p99_us is None else find_qps(lab, p99_us, progress)
    noise = meter.stop()
    notes += cache_notes + _saturation_notes(rows) + _short_run_notes(rows)
    notes += _search_notes(max_throughput)
    if config.driver == "loadgen" and "offline" in scenarios:
        notes.append("offline by LoadGen: each request is timed from the start of the run")
    return BenchResult(
        bundle=description,
        config=config,
        machine=fingerprint(),
        noise=noise,
        startup=startup,
        files=files,
        rows=tuple(rows),
        notes=tuple(notes),
        max_throughput=max_throughput,
        cost_estimate=_estimate_cost(rows, max_throughput, lab.load.scored, price, target_load),
        bandwidth=copy_bandwidth(),
        compression=compression_points(bundle),
    )


def _bundle_source(bundle: Bundle | None, requests: AnyRequests) -> BundleSource:
    if bundle is None:
        raise DataError("nothing to measure: pass a bundle, or the source of another system")
    # Half of the pool: see BenchConfig.pool.
    return BundleSource(bundle.path, requests.count // 2)


def _startup(bundle: Bundle, requests: AnyRequests, config: BenchConfig) -> Startup:
    item = requests.candidates(1)[0][0]
    return measure_startup(bundle.path, requests.histories[0], item, config.starts)


def _limit_candidates(config: BenchConfig, candidates: int) -> tuple[BenchConfig, list[str]]:
    fitting = tuple(n for n in config.candidates if n <= candidates)
    too_many = ", ".join(str(n) for n in config.candidates if n > candidates)
    if not fitting:
        raise DataError(
            f"requests of {too_many} candidates: the bundle has {candidates}; ask for at most "
            f"{candidates}"
        )
    notes = [f"the bundle has {candidates} candidates: requests of {too_many} left out"]
    return replace(config, candidates=fitting), notes if too_many else []


def _check_cold(
    config: BenchConfig, system: System, requests: AnyRequests
) -> tuple[BenchConfig, list[str]]:
    """Switch to warm requests, with a note, if a bundle can't be evicted from the page cache."""
    if config.cache == "warm" or not isinstance(system, BundleSystem):
        return config, []
    if system.is_evicted(Request(requests.histories[0], requests.candidates(1)[0])):
        return config, []
    note = (
        "no cold requests: the bundle can't be evicted from the page cache here; put it on a disk, "
        "and close other programs that use it"
    )
    return replace(config, cache="warm"), [note]


def _short_run_notes(rows: Sequence[Row]) -> list[str]:
    needed = round(1 / (1 - PERCENTILES["p99.9"]))
    return [
        f"{row.scenario}, {row.shape}, {row.state}: only {row.latency.queries} queries, "
        "so p99.9 is the maximum"
        for row in rows
        if row.latency.queries < needed
    ]


def _saturation_notes(rows: Sequence[Row]) -> list[str]:
    return [
        f"server at {row.target_qps:,.0f} requests/s: only {row.latency.qps:,.0f} were answered, "
        "so the queue grows without end"
        for row in rows
        if row.saturated
    ]


def _search_notes(max_throughput: MaxThroughput | None) -> list[str]:
    row = None if max_throughput is None else max_throughput.too_short()
    if max_throughput is None or row is None:
        return []
    return [
        f"search for the highest rate: p99 was within the bound at {row.target_qps:,.0f} "
        f"requests/s, but {row.latency.queries:,} queries are too few to show that at "
        f"{max_throughput.confidence:.0%} confidence (at least {max_throughput.min_queries:,} "
        "are needed, more if some are slow); raise --seconds or --min-queries"
    ]


def _estimate_cost(
    rows: Sequence[Row],
    max_throughput: MaxThroughput | None,
    scored: int,
    price: float | None,
    target_load: float | None,
) -> CostEstimate | None:
    """Estimate the cost at the highest rate within the bound, or without a bound at throughput."""
    if price is None and target_load is None:
        return None
    if max_throughput is not None:
        qps, bound = max_throughput.qps, max_throughput.p99_us
    else:
        qps = next((row.latency.qps for row in rows if row.scenario == "offline"), None)
        bound = None
    return None if qps is None else CostEstimate(qps, bound, scored, price, target_load)
