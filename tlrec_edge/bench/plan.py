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
_FARTHEST = 10
_SMALLEST, _LARGEST = PREFIX_MIN_CANDIDATES, 200_000
_TIMES = ("top_k_us", "busy_us")
FIGURES = {
    "top_k_us": "top-k alone, p50 in us",
    "busy_us": "machine time of a request, us",
    "memory_bytes": "memory of all workers, bytes",
    "bundle_bytes": "bundle, bytes",
}
"""Name of each extrapolated figure -> what it is."""


@dataclass(frozen=True)
class Wanted:
    """What is to be served: the best ``k`` of ``items`` for ``qps`` requests a second within ``p99_us``."""

    items: int
    dim: int
    qps: float
    p99_us: float
    users: int = 0


@dataclass(frozen=True)
class Size:
    """One measured size; ``uses_ivf``: whether a top-k searches lists there, or all heads. ``stretch``: p99 over
    ``top_k_us`` at each share of the machine's capacity."""

    items: int
    dim: int
    uses_ivf: bool
    cpu: str
    workers: int
    noisy: bool
    figures: dict[str, float]
    stretch: tuple[tuple[float, float], ...]

    @classmethod
    def from_result(cls, result: dict[str, Any], name: str = "the result") -> Size:
        """Read a result of ``bench --load top-k`` with the scenarios of a plan. Raises DataError."""
        about, rows = result["bundle"], result["rows"]
        alone = [row for row in rows if row["scenario"] == "top-k" and row["state"] == "encoded"]
        loaded = [row for row in rows if row["scenario"] == "server" and row["scored"] == about.get("candidates")]
        offline = [row for row in rows if row["scenario"] == "offline" and row["scored"] == about.get("candidates")]
        if not (alone and loaded and offline) or result["bytes"] is None:
            raise DataError(f"{name} lacks what a plan rests on: write it by `bench BUNDLE --load top-k --out FILE`")
        capacity = offline[0]["qps"]
        service = alone[0]["latency_us"]["p50"]
        memory = max((row["pss_bytes"] or 0 for row in rows), default=0) or (result["startup"] or {}).get("rss_bytes")
        figures = {"top_k_us": service, "busy_us": 1e6 / capacity, "bundle_bytes": float(result["bytes"])}
        steady = sorted(
            (r["target_qps"] / capacity, r["latency_us"]["p99"] / service) for r in loaded if not r["saturated"]
        )
        if memory:
            figures["memory_bytes"] = float(memory)
        return cls(
            about["candidates"], about["dim"], bool(about.get("lists")), result["machine"]["cpu"],
            result["config"]["processes"], result["noise"]["noisy"], figures, tuple(steady),
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What ``wanted`` needs. ``errors``: of each figure at the size held back, predicted over measured less 1."""

    wanted: Wanted
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


def make_plan(wanted: Wanted, sizes: Sequence[Size], memory: int | None = None) -> Plan:
    """Extrapolate to what is wanted; ``memory``: bytes of the machine. Raises DataError for what cannot be known."""
    sizes = sorted(sizes, key=lambda size: size.items)
    _refuse_unlike(wanted, sizes)
    *smaller, largest = sizes
    names = [name for name in FIGURES if all(name in size.figures for size in sizes)]
    errors = {name: _line(smaller, name, largest.items) / largest.figures[name] - 1 for name in names}
    figures = {name: _line(sizes, name, wanted.items) for name in names}
    needed = figures.get("memory_bytes", figures["bundle_bytes"])
    if memory is not None and needed > memory:
        raise DataError(
            f"{wanted.items:,} items take {needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f}: how fast they "
            "would be from disk was not measured; take 4-bit tables or a larger machine"
        )
    share = _share(wanted, figures["top_k_us"], largest)
    rate = share * 1e6 / figures["busy_us"]
    worst = 1 + max(0.0, -errors["busy_us"])
    return Plan(
        wanted, tuple(size.items for size in smaller), largest.items, errors, figures, share, rate, largest.workers,
        math.ceil(wanted.qps / rate), math.ceil(wanted.qps * worst / rate), any(size.noisy for size in sizes),
    )  # fmt: skip


def measure_sizes(
    items: int, dim: int, seconds: float, seed: int = 0, say: Callable[[str], None] = lambda line: None
) -> list[Size]:
    """Measure three synthetic bundles with a worker a core. Raises MissingExtraError without onnx."""
    sizes = []
    with TemporaryDirectory(prefix="tlrec-plan-") as folder:
        largest = max(8 * _SMALLEST, min(_LARGEST, items // 5))
        for count in (largest // 8, largest // 2, largest):
            say(f"{count:,} items: a synthetic bundle")
            lists_beyond = 0 if items > IVF_MIN_CANDIDATES else IVF_MIN_CANDIDATES
            synthesize(Path(folder) / str(count), SynthConfig(count, dim, lists_beyond=lists_beyond, seed=seed))
            sizes.append(measure_size(Path(folder) / str(count), seconds, seed, say))
    return sizes


def measure_size(bundle: Path, seconds: float, seed: int = 0, say: Callable[[str], None] = lambda line: None) -> Size:
    """Measure one bundle with a worker a core."""
    config = BenchConfig(load=TOP_K, seconds=seconds, seed=seed, batch=1, starts=1, min_queries=100)
    config = replace(config, processes=fingerprint().usable_cores)
    return Size.from_result(run_bench(bundle, config, SCENARIOS, say).to_json())


def _refuse_unlike(wanted: Wanted, sizes: Sequence[Size]) -> None:
    if len({size.items for size in sizes}) < 3:
        raise DataError("a plan needs three measured sizes: two for a line and one that it has not seen")
    for what, values in (("machines", {s.cpu for s in sizes}), ("numbers of processes", {s.workers for s in sizes})):
        if len(values) > 1:
            raise DataError(f"the results are of different {what}: {', '.join(sorted(map(str, values)))}")
    dims = {size.dim for size in sizes}
    if dims != {wanted.dim}:
        measured = ", ".join(map(str, sorted(dims)))
        raise DataError(f"measured with vectors of {measured}, asked for {wanted.dim}: measure that width")
    uses_ivf = wanted.items > IVF_MIN_CANDIDATES
    if {size.uses_ivf for size in sizes} != {uses_ivf}:
        how = "list by list" if uses_ivf else "as a whole"
        raise DataError(
            f"{wanted.items:,} items are searched {how}, which was not measured: "
            f"make bundles by `synth --lists-beyond {0 if uses_ivf else IVF_MIN_CANDIDATES}`"
        )
    largest = max(size.items for size in sizes)
    if wanted.items > _FARTHEST * largest:
        most = _FARTHEST * largest
        raise DataError(
            f"{wanted.items:,} items are more than {_FARTHEST} times the {largest:,} measured; at most {most:,} can be "
            "told: measure a larger bundle and give it by --from"
        )


def _line(sizes: Sequence[Size], name: str, items: int) -> float:
    """Return the value at ``items`` of the line with the least relative error through the sizes."""
    power = 0.5 if name in _TIMES and sizes[0].uses_ivf else 1.0
    x = np.array([size.items for size in sizes], np.float64) ** power
    y = np.array([size.figures[name] for size in sizes], np.float64)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    if slope < 0:  # nothing gets cheaper as it grows: a line that falls is noise about a level one
        slope, start = 0.0, np.polyfit(x, y, 0, w=1 / y)[0]
    return float(start + slope * items**power)


def _share(wanted: Wanted, top_k_us: float, measured: Size) -> float:
    """Queues scale with the time of a request: p99 is as many times that as it was at the same share of capacity."""
    keeping = [share for share, stretch in measured.stretch if stretch * top_k_us <= wanted.p99_us]
    if keeping:
        return max(keeping)
    if not measured.stretch:
        raise DataError("no load was measured that the machine could follow; repeat on a quieter one")
    share, stretch = measured.stretch[0]
    p99_ms = stretch * top_k_us / 1000
    raise DataError(
        f"one request alone takes {top_k_us / 1000:.1f} ms, and p99 is {p99_ms:.1f} ms at {share:.0%} of the machine's "
        f"capacity: more machines do not bring it to {wanted.p99_us / 1000:g} ms; raise --p99, or cut --dim or --items"
    )
