"""One run of the latency lab over a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tlrec_edge.bench import loadgen
from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.compare import Ratio, compare
from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.cost_estimate import CostEstimate
from tlrec_edge.bench.drivers import Limits
from tlrec_edge.bench.lab import Lab
from tlrec_edge.bench.latency import PERCENTILES
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.noise import Noise, NoiseMeter, copy_bandwidth
from tlrec_edge.bench.requests import AnyRequests, ItemIds, Replay, Requests
from tlrec_edge.bench.result import BenchResult, MaxThroughput, Row
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.search import find_qps
from tlrec_edge.bench.startup import Startup, measure_startup
from tlrec_edge.bench.system import BundleSource, BundleSystem, Request, Source, System
from tlrec_edge.bundle.format import MANIFEST
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import DataError

_DEFAULT = BenchConfig()
_GENERATED_ITEMS = 10_000
_GROUPS = {
    "item vectors": ("history_*", "candidate_*"),
    "item-item weights": ("wide_*",),
    "encoder": ("encoder.onnx", "*_bias.npy", "groups.npy", "interest_in.npy"),
    "ids, names": ("item_ids.*", "item_names.*", "category_names.*", "item_category.npy"),
    "cold items": ("item_tower.onnx", "text_table.npy", "candidate_text.npy", "features.json"),
    "stored users": ("users.*", "user_*"),
}


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
    """Measure a bundle: latency by scenario, start-up, memory, bytes. ``progress`` hears what is being done.

    ``source``: measure this system instead, with requests of the bundle's ids, or of ``items`` invented ones where
    ``path`` is None. ``replay``: a file of requests. ``p99_us``: search the highest rate that keeps this p99.
    ``price``: of this machine an hour; ``target_load``: requests a second to be served, for the number of machines.
    ``clock``: times the requests that this process answers. Requests of more candidates than there are, are left out
    and named in ``notes``. Raises DataError if none is left, and BundleError.
    """
    if config.driver == "loadgen":
        loadgen.require()
    bundle = None if path is None else Bundle.open(path)
    ids = ItemIds.generated(items) if bundle is None else ItemIds.from_bundle(bundle)
    config, notes = _limit_candidates(config, ids.candidates)
    meter = NoiseMeter()
    drawn = Requests(ids, config.pool, config.zipf, config.seed)
    requests: AnyRequests = drawn if replay is None else Replay(replay, drawn)
    startup = files = None
    if bundle is not None and source is None:
        progress("start-up: fresh processes")
        startup, files = _startup(bundle, requests, config), _bytes_by_group(bundle)
    description = _describe_system(bundle, source, requests)
    source = source or _bundle_source(bundle, requests, config)
    rows: list[Row] = []
    with source.open() as system:
        config, cache_notes = _check_cold(config, system, requests)
        notes += cache_notes
        lab = Lab(source, system, requests, config, clock)
        for name in scenarios:
            progress(f"{name}: each shape for {config.seconds:g} s")
            rows.extend(SCENARIOS[name](lab))
        max_throughput = None if p99_us is None else find_qps(lab, p99_us, progress)
    noise = meter.stop()
    cost_estimate = _estimate_cost(rows, max_throughput, lab, price, target_load)
    notes += _saturation_notes(rows) + _short_runs(rows)
    if config.driver == "loadgen" and "offline" in scenarios:
        notes.append("offline by LoadGen: each request is timed from the start of the run")
    return BenchResult(
        description,
        config,
        fingerprint(),
        noise,
        startup,
        files,
        tuple(rows),
        tuple(notes),
        max_throughput,
        cost_estimate,
        copy_bandwidth(),
        _compression(bundle),
    )


def compare_bundles(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    config: BenchConfig = _DEFAULT,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[Ratio], Noise]:
    """Time two bundles in turns on requests of A's ids: the scenarios' load, and top-k. Rounds last ``seconds / 4``.

    Raises BundleError.
    """
    meter, paths = NoiseMeter(), (Path(a), Path(b))
    opened = [Bundle.open(path) for path in paths]
    requests = Requests(ItemIds.from_bundle(opened[0]), config.pool, config.zipf, config.seed)
    first, second = (BundleSource(path, config.pool // 2) for path in paths)
    limits = Limits(config.seconds / 4, 1, min(config.warmup, config.seconds / 4))
    with first.open() as system:
        lab = Lab(first, system, requests, config)
        shapes = {shape.label: shape for shape in (lab.load, lab.top_k(requests))}
    ratios = [
        compare(first, second, name, shape.requests, limits, config.seed, progress=progress)
        for name, shape in shapes.items()
    ]
    return ratios, meter.stop()


def _estimate_cost(
    rows: Sequence[Row],
    max_throughput: MaxThroughput | None,
    lab: Lab,
    price: float | None,
    target_load: float | None,
) -> CostEstimate | None:
    """Weigh the highest rate within the bound, or without one the throughput."""
    offline = next((row.latency.qps for row in rows if row.scenario == "offline"), None)
    qps, bound = (
        (max_throughput.qps, max_throughput.p99_us)
        if max_throughput is not None
        else (offline, None)
    )
    if qps is None or (price is None and target_load is None):
        return None
    return CostEstimate(qps, bound, lab.load.scored, price, target_load)


def _compression(bundle: Bundle | None) -> tuple[dict[str, Any], ...]:
    """Return the points of the compression that made the bundle, as its manifest tells."""
    card = {} if bundle is None else bundle.manifest.get("compression")
    return (
        tuple(card.get("points") or ()) if isinstance(card, dict) else ()
    )  # a list in the first bundles


def _bundle_source(
    bundle: Bundle | None, requests: AnyRequests, config: BenchConfig
) -> BundleSource:
    if bundle is None:
        raise DataError("nothing to measure: give a bundle, or a system under test")
    return BundleSource(bundle.path, requests.count // 2)


def _startup(bundle: Bundle, requests: AnyRequests, config: BenchConfig) -> Startup:
    item = requests.candidates(1)[0][0]
    return measure_startup(bundle.path, requests.histories[0], item, config.starts)


def _limit_candidates(config: BenchConfig, candidates: int) -> tuple[BenchConfig, list[str]]:
    fitting = tuple(n for n in config.candidates if n <= candidates)
    left_out = [str(n) for n in config.candidates if n > candidates]
    if not fitting:
        counts = ", ".join(left_out)
        raise DataError(
            f"{counts} candidates asked for, the bundle has {candidates}; ask for at most {candidates}"
        )
    notes = (
        [f"the bundle has {candidates} candidates: requests of {', '.join(left_out)} left out"]
        if left_out
        else []
    )
    return replace(config, candidates=fitting), notes


def _check_cold(
    config: BenchConfig, system: System, requests: AnyRequests
) -> tuple[BenchConfig, list[str]]:
    """Leave the cold requests out, and say so, where a bundle cannot be put out of the page cache."""
    if config.cache == "warm" or not isinstance(system, BundleSystem):
        return config, []
    if system.is_evicted(Request(requests.histories[0], requests.candidates(1)[0])):
        return config, []
    note = "the bundle cannot be put out of the page cache here, so no cold requests: is it on a disk, and open only here?"
    return replace(config, cache="warm"), [note]


def _short_runs(rows: Sequence[Row]) -> list[str]:
    needed = round(1 / (1 - PERCENTILES["p99.9"]))
    return [
        f"{row.scenario}, {row.shape}, {row.state}: only {row.latency.queries} queries, so p99.9 is the maximum"
        for row in rows
        if row.latency.queries < needed
    ]


def _saturation_notes(rows: Sequence[Row]) -> list[str]:
    return [
        f"server at {row.target_qps:,.0f} a second: answered {row.latency.qps:,.0f}, so the queue grows without end"
        for row in rows
        if row.saturated
    ]


def _describe_system(
    bundle: Bundle | None, source: Source | None, requests: AnyRequests
) -> dict[str, Any]:
    description: dict[str, Any] = {
        "name": source.name if source else "",
        "history": requests.history_length,
    }
    if bundle is None:
        return description
    shape = bundle.shape
    return {
        "name": bundle.path.resolve().name,
        "format": bundle.manifest["format"],
        "tables": str(shape.tables),
        "items": shape.items,
        "candidates": shape.candidates,
        "dim": shape.d,
        "width": shape.d + shape.r,
        "lists": (bundle.manifest.get("index") or {}).get("lists", 0),
        **(description if source else {"history": description["history"]}),
    }


def _bytes_by_group(bundle: Bundle) -> dict[str, int]:
    sizes = dict.fromkeys([*_GROUPS, "other"], 0)
    for name, entry in bundle.manifest["files"].items():
        sizes[_group(name)] += entry["size"]
    sizes["other"] += (Path(bundle.path) / MANIFEST).stat().st_size
    return {group: size for group, size in sizes.items() if size}


def _group(name: str) -> str:
    return next(
        (
            group
            for group, masks in _GROUPS.items()
            if any(fnmatchcase(name, mask) for mask in masks)
        ),
        "other",
    )
