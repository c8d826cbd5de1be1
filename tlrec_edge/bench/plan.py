"""How much of this machine a shop of a given size needs: extrapolated from measured sizes, with the error that shows.

Each figure is taken to be a line in the number of items; times where lists are searched, in its square root, as there
are about as many lists. The line through the smaller sizes is tried on the largest, which it has not seen; the plan
itself rests on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tlrec_edge.bench.config import TOP_K, BenchConfig
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.run import run_bench
from tlrec_edge.bench.synthetic import SynthConfig, synthesize
from tlrec_edge.errors import DataError
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES
from tlrec_edge.search.fit_prefix_bound import PREFIX_MIN_CANDIDATES

SCENARIOS = ("top-k", "server", "offline")
_MAX_EXTRAPOLATION = 10
_MIN_ITEMS, _MAX_ITEMS = PREFIX_MIN_CANDIDATES, 200_000
_TIMES = ("top_k_us", "busy_us")
FIGURES = {
    "top_k_us": "top-k alone, p50 in us",
    "busy_us": "machine time of a request, us",
    "memory_bytes": "memory of all workers, bytes",
    "bundle_bytes": "bundle, bytes",
}
"""Name of each extrapolated figure -> what it is."""


@dataclass(frozen=True)
class Workload:
    """What is to be served: the best ``k`` of ``items`` for ``qps`` requests a second within ``p99_us``."""

    items: int
    dim: int
    qps: float
    p99_us: float
    users: int = 0


@dataclass(frozen=True)
class MeasuredSize:
    """One measured size; ``uses_ivf``: whether a top-k searches lists there, or all heads. ``slowdowns``: p99 over
    ``top_k_us`` at each share of the machine's capacity."""

    items: int
    dim: int
    uses_ivf: bool
    cpu: str
    workers: int
    noisy: bool
    figures: dict[str, float]
    slowdowns: tuple[tuple[float, float], ...]

    @classmethod
    def from_result(cls, result: dict[str, Any], name: str = "the result") -> MeasuredSize:
        """Read a result of ``bench --load top-k`` with the scenarios of a plan. Raises DataError."""
        description, rows = result["bundle"], result["rows"]
        unloaded = [row for row in rows if row["scenario"] == "top-k" and row["state"] == "encoded"]
        loaded = [
            row
            for row in rows
            if row["scenario"] == "server" and row["scored"] == description.get("candidates")
        ]
        offline = [
            row
            for row in rows
            if row["scenario"] == "offline" and row["scored"] == description.get("candidates")
        ]
        if not (unloaded and loaded and offline) or result["bytes"] is None:
            raise DataError(
                f"{name} lacks what a plan rests on: write it by `bench BUNDLE --load top-k --out FILE`"
            )
        capacity = offline[0]["qps"]
        service = unloaded[0]["latency_us"]["p50"]
        memory = max((row["pss_bytes"] or 0 for row in rows), default=0) or (
            result["startup"] or {}
        ).get("rss_bytes")
        figures = {
            "top_k_us": service,
            "busy_us": 1e6 / capacity,
            "bundle_bytes": float(result["bytes"]),
        }
        steady = sorted(
            (r["target_qps"] / capacity, r["latency_us"]["p99"] / service)
            for r in loaded
            if not r["saturated"]
        )
        if memory:
            figures["memory_bytes"] = float(memory)
        return cls(
            description["candidates"],
            description["dim"],
            bool(description.get("lists")),
            result["machine"]["cpu"],
            result["config"]["processes"],
            result["noise"]["noisy"],
            figures,
            tuple(steady),
        )


@dataclass(frozen=True)
class Plan:
    """What ``wanted`` needs. ``errors``: of each figure at the size held back, predicted over measured less 1."""

    wanted: Workload
    fitted: tuple[int, ...]
    held_back: int
    errors: dict[str, float]
    figures: dict[str, float]
    share: float
    """Of the machine's capacity at which p99 keeps its bound: the highest that was measured and does."""
    qps_of_a_machine: float
    workers: int
    machines: int
    machines_with_error: int
    noisy: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"fitted": list(self.fitted)}


def make_plan(workload: Workload, sizes: Sequence[MeasuredSize], memory: int | None = None) -> Plan:
    """Extrapolate to what is wanted; ``memory``: bytes of the machine. Raises DataError for what cannot be known."""
    sizes = sorted(sizes, key=lambda size: size.items)
    _check_comparable(workload, sizes)
    *smaller, largest = sizes
    names = [name for name in FIGURES if all(name in size.figures for size in sizes)]
    errors = {
        name: _extrapolate(smaller, name, largest.items) / largest.figures[name] - 1
        for name in names
    }
    figures = {name: _extrapolate(sizes, name, workload.items) for name in names}
    needed = figures.get("memory_bytes", figures["bundle_bytes"])
    if memory is not None and needed > memory:
        raise DataError(
            f"{workload.items:,} items take {needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f}: how fast they "
            "would be from disk was not measured; take 4-bit tables or a larger machine"
        )
    utilisation = _max_utilisation(workload, figures["top_k_us"], largest)
    rate = utilisation * 1e6 / figures["busy_us"]
    error_factor = 1 + max(0.0, -errors["busy_us"])
    return Plan(
        workload,
        tuple(size.items for size in smaller),
        largest.items,
        errors,
        figures,
        utilisation,
        rate,
        largest.workers,
        math.ceil(workload.qps / rate),
        math.ceil(workload.qps * error_factor / rate),
        any(size.noisy for size in sizes),
    )


def measure_sizes(
    items: int,
    dim: int,
    seconds: float,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[MeasuredSize]:
    """Measure three synthetic bundles with a worker a core. Raises MissingExtraError without onnx."""
    sizes = []
    with TemporaryDirectory(prefix="tlrec-plan-") as folder:
        largest = max(8 * _MIN_ITEMS, min(_MAX_ITEMS, items // 5))
        for count in (largest // 8, largest // 2, largest):
            progress(f"{count:,} items: a synthetic bundle")
            lists_beyond = 0 if items > IVF_MIN_CANDIDATES else IVF_MIN_CANDIDATES
            synthesize(
                Path(folder) / str(count),
                SynthConfig(count, dim, lists_beyond=lists_beyond, seed=seed),
            )
            sizes.append(measure_size(Path(folder) / str(count), seconds, seed, progress))
    return sizes


def measure_size(
    bundle: Path, seconds: float, seed: int = 0, progress: Callable[[str], None] = lambda line: None
) -> MeasuredSize:
    """Measure one bundle with a worker a core."""
    config = BenchConfig(load=TOP_K, seconds=seconds, seed=seed, batch=1, starts=1, min_queries=100)
    config = replace(config, processes=fingerprint().usable_cores)
    return MeasuredSize.from_result(run_bench(bundle, config, SCENARIOS, progress).to_json())


def _check_comparable(workload: Workload, sizes: Sequence[MeasuredSize]) -> None:
    if len({size.items for size in sizes}) < 3:
        raise DataError(
            "a plan needs three measured sizes: two for a line and one that it has not seen"
        )
    for what, values in (
        ("machines", {s.cpu for s in sizes}),
        ("numbers of processes", {s.workers for s in sizes}),
    ):
        if len(values) > 1:
            raise DataError(
                f"the results are of different {what}: {', '.join(sorted(map(str, values)))}"
            )
    dims = {size.dim for size in sizes}
    if dims != {workload.dim}:
        measured = ", ".join(map(str, sorted(dims)))
        raise DataError(
            f"measured with vectors of {measured}, asked for {workload.dim}: measure that width"
        )
    uses_ivf = workload.items > IVF_MIN_CANDIDATES
    if {size.uses_ivf for size in sizes} != {uses_ivf}:
        how = "list by list" if uses_ivf else "as a whole"
        raise DataError(
            f"{workload.items:,} items are searched {how}, which was not measured: "
            f"make bundles by `synth --lists-beyond {0 if uses_ivf else IVF_MIN_CANDIDATES}`"
        )
    largest = max(size.items for size in sizes)
    if workload.items > _MAX_EXTRAPOLATION * largest:
        furthest = _MAX_EXTRAPOLATION * largest
        raise DataError(
            f"{workload.items:,} items are more than {_MAX_EXTRAPOLATION} times the {largest:,} measured; "
            f"at most {furthest:,} can be told: measure a larger bundle and give it by --from"
        )


def _extrapolate(sizes: Sequence[MeasuredSize], name: str, items: int) -> float:
    """Return the value at ``items`` of the line with the least relative error through the sizes."""
    power = 0.5 if name in _TIMES and sizes[0].uses_ivf else 1.0
    x = np.array([size.items for size in sizes], np.float64) ** power
    y = np.array([size.figures[name] for size in sizes], np.float64)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    if slope < 0:  # nothing gets cheaper as it grows: a line that falls is noise about a level one
        slope, intercept = 0.0, np.polyfit(x, y, 0, w=1 / y)[0]
    return float(intercept + slope * items**power)


def _max_utilisation(workload: Workload, top_k_us: float, measured: MeasuredSize) -> float:
    """Queues scale with the time of a request: p99 is as many times that as it was at the same share of capacity."""
    keeping = [
        utilisation
        for utilisation, slowdown in measured.slowdowns
        if slowdown * top_k_us <= workload.p99_us
    ]
    if keeping:
        return max(keeping)
    if not measured.slowdowns:
        raise DataError(
            "no load was measured that the machine could follow; repeat on a quieter one"
        )
    utilisation, slowdown = measured.slowdowns[0]
    p99_ms = slowdown * top_k_us / 1000
    raise DataError(
        f"one request alone takes {top_k_us / 1000:.1f} ms, and p99 is {p99_ms:.1f} ms at {utilisation:.0%} of the "
        f"machine's capacity: more machines do not bring it to {workload.p99_us / 1000:g} ms; "
        "raise --p99, or cut --dim or --items"
    )
