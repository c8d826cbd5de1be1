"""One run of the latency lab over a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.latency import PERCENTILES
from tlrec_edge.bench.machine import Noise, cpu_ticks, fingerprint, loop_spread, stolen_share
from tlrec_edge.bench.requests import Requests
from tlrec_edge.bench.result import BenchResult, Row
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.startup import measure_startup
from tlrec_edge.bundle import Bundle
from tlrec_edge.errors import DataError
from tlrec_edge.layout import MANIFEST
from tlrec_edge.runtime import Recommender

_DEFAULT = BenchConfig()
_GROUPS = {
    "item vectors": ("history_*", "candidate_*"),
    "item-item weights": ("wide_*",),
    "encoder": ("encoder.onnx", "*_bias.npy", "groups.npy", "interest_in.npy"),
    "ids, names": ("item_ids.*", "item_names.*", "category_names.*", "item_category.npy"),
    "cold items": ("item_tower.onnx", "text_table.npy", "candidate_text.npy", "features.json"),
    "stored users": ("users.*", "user_*"),
}


def run_bench(
    path: str | os.PathLike[str],
    config: BenchConfig = _DEFAULT,
    scenarios: Sequence[str] = tuple(SCENARIOS),
    say: Callable[[str], None] = lambda line: None,
) -> BenchResult:
    """Measure a bundle: latency by scenario, start-up, memory, bytes. ``say`` hears what is being done.

    Requests of more candidates than there are, are left out and named in ``notes``. Raises DataError if none is left,
    BundleError.
    """
    bundle = Bundle.open(path)
    config, notes = _fit(config, bundle.shape.candidates)
    ticks, spread = cpu_ticks(), loop_spread()
    requests = Requests(bundle, config.pool, config.zipf, config.seed)
    say("start-up: fresh processes")
    startup = measure_startup(bundle.path, requests.histories[0], requests.candidates(1)[0][0], config.starts)
    rows: list[Row] = []
    with Recommender.open(path, cache=config.pool // 2) as rec:
        for name in scenarios:
            say(f"{name}: each shape for {config.seconds:g} s")
            rows.extend(SCENARIOS[name](rec, requests, config))
    noise = Noise(max(spread, loop_spread()), stolen_share(ticks, cpu_ticks()))
    about = _about(bundle, requests)
    return BenchResult(
        about, config, fingerprint(), noise, startup, _bytes(bundle), tuple(rows), (*notes, *_thin(rows))
    )


def _fit(config: BenchConfig, candidates: int) -> tuple[BenchConfig, list[str]]:
    fitting = tuple(n for n in config.candidates if n <= candidates)
    left_out = [str(n) for n in config.candidates if n > candidates]
    if not fitting:
        asked = ", ".join(left_out)
        raise DataError(f"{asked} candidates asked for, the bundle has {candidates}; ask for at most {candidates}")
    notes = [f"the bundle has {candidates} candidates: requests of {', '.join(left_out)} left out"] if left_out else []
    return replace(config, candidates=fitting), notes


def _thin(rows: Sequence[Row]) -> list[str]:
    needed = round(1 / (1 - PERCENTILES["p99.9"]))
    return [
        f"{row.scenario}, {row.shape}, {row.state}: only {row.latency.queries} queries, so p99.9 is the maximum"
        for row in rows
        if row.latency.queries < needed
    ]


def _about(bundle: Bundle, requests: Requests) -> dict[str, Any]:
    shape = bundle.shape
    return {
        "name": bundle.path.resolve().name,
        "format": bundle.manifest["format"],
        "tables": str(shape.tables),
        "items": shape.items,
        "candidates": shape.candidates,
        "width": shape.d + shape.r,
        "history": requests.history_length,
    }


def _bytes(bundle: Bundle) -> dict[str, int]:
    sizes = dict.fromkeys([*_GROUPS, "other"], 0)
    for name, entry in bundle.manifest["files"].items():
        sizes[_group(name)] += entry["size"]
    sizes["other"] += (Path(bundle.path) / MANIFEST).stat().st_size
    return {group: size for group, size in sizes.items() if size}


def _group(name: str) -> str:
    return next((group for group, masks in _GROUPS.items() if any(fnmatchcase(name, mask) for mask in masks)), "other")
