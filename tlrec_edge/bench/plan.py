"""Capacity planning: estimate how many of this machine a catalogue of a given size needs.

Figures are extrapolated from measured sizes. A figure is assumed to grow linearly with the number
of items; the times of an IVF index grow linearly with its square root, as the number of clusters
does. To estimate the error, the line through the smaller sizes predicts the largest one, which was
measured too. The plan itself uses the line through all sizes.
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
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.errors import DataError
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES
from tlrec_edge.search.fit_prefix_bound import PREFIX_MIN_CANDIDATES

SCENARIOS = ("top-k", "server", "offline")
_MAX_EXTRAPOLATION = 10
"""Largest number of items in a plan, as a multiple of the largest measured size."""
_MIN_ITEMS, _MAX_ITEMS = PREFIX_MIN_CANDIDATES, 200_000
_TIMES = ("top_k_us", "busy_us")
FIGURES = {
    "top_k_us": "top-k alone, p50 in us",
    "busy_us": "machine time of a request, us",
    "memory_bytes": "memory of all workers, bytes",
    "bundle_bytes": "bundle, bytes",
}
"""Name of each extrapolated figure -> its description."""


@dataclass(frozen=True)
class Workload:
    """The load to serve: top-k requests over the full catalogue."""

    items: int
    dim: int
    """Width of the two-tower vectors."""
    qps: float
    """Requests per second."""
    p99_us: float
    """Bound of p99 in microseconds."""
    users: int = 0


@dataclass(frozen=True)
class MeasuredSize:
    """Figures of one measured catalogue size."""

    items: int
    dim: int
    uses_ivf: bool
    """Whether top-k uses an IVF index, or scans the full catalogue."""
    cpu: str
    workers: int
    noisy: bool
    figures: dict[str, float]
    """Values by the names in ``FIGURES``."""
    slowdowns: tuple[tuple[float, float], ...]
    """Pairs of a utilisation of the machine and p99 there over ``top_k_us``, ascending."""

    @classmethod
    def from_result(cls, result: dict[str, Any], name: str = "the result") -> MeasuredSize:
        """Read a result of ``bench --load top-k``. Raises DataError if it lacks a scenario.

        ``name`` names the result in the message.
        """
        description, rows = result["bundle"], result["rows"]
        candidates = description.get("candidates")
        by_scenario = {
            scenario: [row for row in rows if row["scenario"] == scenario] for scenario in SCENARIOS
        }
        alone = [row for row in by_scenario["top-k"] if row["state"] == "encoded"]
        loaded = [row for row in by_scenario["server"] if row["scored"] == candidates]
        offline = [row for row in by_scenario["offline"] if row["scored"] == candidates]
        if not (alone and loaded and offline) or result["bytes"] is None:
            raise DataError(
                f"{name} lacks figures that a plan needs: "
                "write it by `bench BUNDLE --load top-k --out FILE`"
            )
        capacity, top_k_us = offline[0]["qps"], alone[0]["latency_us"]["p50"]
        figures = {
            "top_k_us": top_k_us,
            "busy_us": 1e6 / capacity,
            "bundle_bytes": float(result["bytes"]),
        }
        memory = max((row["pss_bytes"] or 0 for row in rows), default=0)
        memory = memory or (result["startup"] or {}).get("rss_bytes")
        if memory:
            figures["memory_bytes"] = float(memory)
        slowdowns = [
            (row["target_qps"] / capacity, row["latency_us"]["p99"] / top_k_us)
            for row in loaded
            if not row["saturated"]
        ]
        return cls(
            items=candidates,
            dim=description["dim"],
            uses_ivf=bool(description.get("lists")),
            cpu=result["machine"]["cpu"],
            workers=result["config"]["processes"],
            noisy=result["noise"]["noisy"],
            figures=figures,
            slowdowns=tuple(sorted(slowdowns)),
        )


@dataclass(frozen=True)
class Plan:
    """What a workload needs."""

    workload: Workload
    fitted: tuple[int, ...]
    """Sizes from which the figures at the validation size were predicted."""
    validation_size: int
    """Size on which the error was measured."""
    errors: dict[str, float]
    """Relative error of each figure at the validation size: predicted over measured, minus 1."""
    figures: dict[str, float]
    """Values at the workload's size, by the names in ``FIGURES``."""
    utilisation: float
    """Highest measured utilisation of a machine at which p99 keeps its bound."""
    qps_per_machine: float
    workers: int
    machines: int
    machines_with_error: int
    """Number of machines if the figures are too optimistic by the measured error."""
    noisy: bool
    """Whether a size was measured on a noisy machine."""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "wanted": asdict(self.workload),
            "fitted": list(self.fitted),
            "held_back": self.validation_size,
            "errors": self.errors,
            "figures": self.figures,
            "share": self.utilisation,
            "qps_of_a_machine": self.qps_per_machine,
            "workers": self.workers,
            "machines": self.machines,
            "machines_with_error": self.machines_with_error,
            "noisy": self.noisy,
        }


def make_plan(workload: Workload, sizes: Sequence[MeasuredSize], memory: int | None = None) -> Plan:
    """Extrapolate measured sizes to a workload.

    ``memory`` is that of the machine in bytes; None skips the check. Raises DataError if the sizes
    can't be compared, the workload is too far from them, or it doesn't fit the machine.
    """
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
            f"{workload.items:,} items need {needed / 1e9:.1f} GB, this machine has "
            f"{memory / 1e9:.1f} GB, and reading from disk was not measured: "
            "use 4-bit tables or a larger machine"
        )
    utilisation = _max_utilisation(workload, figures["top_k_us"], largest)
    rate = utilisation * 1e6 / figures["busy_us"]
    error_factor = 1 + max(0.0, -errors["busy_us"])
    return Plan(
        workload=workload,
        fitted=tuple(size.items for size in smaller),
        validation_size=largest.items,
        errors=errors,
        figures=figures,
        utilisation=utilisation,
        qps_per_machine=rate,
        workers=largest.workers,
        machines=math.ceil(workload.qps / rate),
        machines_with_error=math.ceil(workload.qps * error_factor / rate),
        noisy=any(size.noisy for size in sizes),
    )


def measure_sizes(
    items: int,
    dim: int,
    seconds: float,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[MeasuredSize]:
    """Measure three synthetic bundles, with one worker per core.

    Raises MissingExtraError if onnx is not installed.
    """
    sizes = []
    lists_beyond = 0 if items > IVF_MIN_CANDIDATES else IVF_MIN_CANDIDATES
    largest = max(8 * _MIN_ITEMS, min(_MAX_ITEMS, items // 5))
    with TemporaryDirectory(prefix="tlrec-plan-") as folder:
        for count in (largest // 8, largest // 2, largest):
            progress(f"{count:,} items: a synthetic bundle")
            bundle = Path(folder) / str(count)
            synthesize(bundle, SynthConfig(count, dim, lists_beyond=lists_beyond, seed=seed))
            sizes.append(measure_size(bundle, seconds, seed, progress))
    return sizes


def measure_size(
    bundle: Path, seconds: float, seed: int = 0, progress: Callable[[str], None] = lambda line: None
) -> MeasuredSize:
    """Measure one bundle, with one worker per core."""
    config = BenchConfig(load=TOP_K, seconds=seconds, seed=seed, batch=1, starts=1, min_queries=100)
    config = replace(config, processes=fingerprint().usable_cores)
    return MeasuredSize.from_result(run_bench(bundle, config, SCENARIOS, progress).to_json())


def _check_comparable(workload: Workload, sizes: Sequence[MeasuredSize]) -> None:
    if len({size.items for size in sizes}) < 3:
        raise DataError(
            "a plan needs three measured sizes: two for a line, and one to measure its error"
        )
    for what, values in (
        ("machines", {size.cpu for size in sizes}),
        ("numbers of processes", {size.workers for size in sizes}),
    ):
        if len(values) > 1:
            names = ", ".join(sorted(map(str, values)))
            raise DataError(f"the results are of different {what}: {names}")
    dims = {size.dim for size in sizes}
    if dims != {workload.dim}:
        measured = ", ".join(map(str, sorted(dims)))
        raise DataError(
            f"the results are of vectors of width {measured}, the plan is for {workload.dim}: "
            "measure bundles of that width"
        )
    _check_extrapolation(workload, sizes)


def _check_extrapolation(workload: Workload, sizes: Sequence[MeasuredSize]) -> None:
    uses_ivf = workload.items > IVF_MIN_CANDIDATES
    if {size.uses_ivf for size in sizes} != {uses_ivf}:
        how, beyond = ("with", 0) if uses_ivf else ("without", IVF_MIN_CANDIDATES)
        raise DataError(
            f"{workload.items:,} items are searched {how} an IVF index, which was not measured: "
            f"make bundles by `synth --ivf-beyond {beyond}`"
        )
    largest = max(size.items for size in sizes)
    limit = _MAX_EXTRAPOLATION * largest
    if workload.items > limit:
        raise DataError(
            f"{workload.items:,} items are more than {_MAX_EXTRAPOLATION} times the {largest:,} "
            f"measured: plan for at most {limit:,}, or measure a larger bundle and pass it by "
            "--from"
        )


def _extrapolate(sizes: Sequence[MeasuredSize], name: str, items: int) -> float:
    """Return the value at ``items`` of the line with the least relative error."""
    power = 0.5 if name in _TIMES and sizes[0].uses_ivf else 1.0
    x = np.array([size.items for size in sizes], np.float64) ** power
    y = np.array([size.figures[name] for size in sizes], np.float64)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    if slope < 0:  # no figure falls with size: a falling line is a constant with noise
        slope, intercept = 0.0, np.polyfit(x, y, 0, w=1 / y)[0]
    return float(intercept + slope * items**power)


def _max_utilisation(workload: Workload, top_k_us: float, measured: MeasuredSize) -> float:
    """Return the highest measured utilisation at which the workload's p99 keeps its bound.

    Queueing times scale with the time of a request: at the same utilisation, p99 is the same
    multiple of ``top_k_us`` for every size.
    """
    if not measured.slowdowns:
        raise DataError(
            "the machine could not follow any measured load: measure again on a quieter one"
        )
    keeping = [
        utilisation
        for utilisation, slowdown in measured.slowdowns
        if slowdown * top_k_us <= workload.p99_us
    ]
    if keeping:
        return max(keeping)
    utilisation, slowdown = measured.slowdowns[0]
    p99_ms = slowdown * top_k_us / 1000
    raise DataError(
        f"a request alone takes {top_k_us / 1000:.1f} ms, and p99 is {p99_ms:.1f} ms at "
        f"{utilisation:.0%} of the machine's capacity: adding machines can't bring it to "
        f"{workload.p99_us / 1000:g} ms; raise --p99, or lower --dim or --items"
    )
