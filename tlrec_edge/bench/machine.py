"""Which machine this is, and how steadily it runs."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tlrec_edge.bench.latency import percentile
from tlrec_edge.version import VERSION

_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "neon": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "sve": "SVE",
}
_LOOPS, _LOOP = 300, 20_000
_NOISY = 0.25
_STOLEN = 0.02


@dataclass(frozen=True)
class Machine:
    """A fingerprint. None: not readable here."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    usable_cores: int
    quota_cores: float | None
    memory_bytes: int | None
    virtualised: bool | None
    system: str
    python: str
    numpy: str
    onnxruntime: str
    tlrec_edge: str


@dataclass(frozen=True)
class Noise:
    """How unsteady the machine was.

    ``spread``: by how much the slowest tenth of equal loops exceeds the fastest. ``stolen``: share of CPU time that the
    host took away during the run, None where it is not readable.
    """

    spread: float
    stolen: float | None

    @property
    def noisy(self) -> bool:
        return self.spread > _NOISY or (self.stolen or 0.0) > _STOLEN

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"noisy": self.noisy}


def fingerprint() -> Machine:
    """Describe this machine."""
    info = _cpuinfo()
    words = (info.get("flags") or info.get("Features") or "").split()
    return Machine(
        cpu=info.get("model name") or info.get("Model") or platform.processor() or platform.machine(),
        flags=tuple(dict.fromkeys(name for flag, name in _FLAGS.items() if flag in words)),
        cores=os.cpu_count() or 1,
        usable_cores=_usable_cores(),
        quota_cores=_quota(),
        memory_bytes=_memory(),
        virtualised="hypervisor" in words if "flags" in info else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=onnxruntime.__version__,
        tlrec_edge=VERSION,
    )


def loop_spread() -> float:
    """Time the same loop many times; return the 90th percentile over the fastest, less 1."""
    taken: list[float] = []
    for _ in range(_LOOPS):
        started = time.perf_counter_ns()
        sum(range(_LOOP))
        taken.append(time.perf_counter_ns() - started)
    taken.sort()
    return percentile(taken, 0.9) / taken[0] - 1


def cpu_ticks() -> tuple[int, int] | None:
    """Return (stolen, all) ticks since the machine started; None where the system does not tell."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def stolen_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Return the share of CPU time stolen between two readings of ``cpu_ticks``."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Return the CPU quota of a container in cores (cgroup v2, then v1)."""
    root = Path("/sys/fs/cgroup")
    try:
        quota, period = (root / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text("ascii").strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text("ascii").strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
