"""Description of the machine."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tlrec_edge.core.cpu_count import quota_cores, usable_cores
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
"""CPU flag of Linux -> name of the instruction set."""
_CPU = Path("/sys/devices/system/cpu/cpu0")


@dataclass(frozen=True)
class Machine:
    """Fingerprint of a machine and its software. A value that can't be read here is None."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    usable_cores: int
    quota_cores: float | None
    mhz: float | None
    caches: tuple[str, ...]
    memory_bytes: int | None
    virtualised: bool | None
    system: str
    python: str
    numpy: str
    onnxruntime: str
    tlrec_edge: str

    def to_json(self) -> dict[str, Any]:
        """Return the fingerprint as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def fingerprint() -> Machine:
    """Describe this machine."""
    info = _cpuinfo()
    words = (info.get("flags") or info.get("Features") or "").split()
    names = (info.get("model name"), info.get("Model"), platform.processor())
    return Machine(
        cpu=next(filter(None, names), platform.machine()),
        flags=tuple(dict.fromkeys(name for flag, name in _FLAGS.items() if flag in words)),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        quota_cores=quota_cores(),
        mhz=_frequency(info),
        caches=_caches(),
        memory_bytes=_memory(),
        virtualised="hypervisor" in words if "flags" in info else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=onnxruntime.__version__,
        tlrec_edge=VERSION,
    )


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _frequency(info: dict[str, str]) -> float | None:
    """Return the highest clock rate in MHz, or the current one if only that is known."""
    try:
        return int((_CPU / "cpufreq/cpuinfo_max_freq").read_text("ascii")) / 1000
    except (OSError, ValueError):
        try:
            return float(info["cpu MHz"])
        except (KeyError, ValueError):
            return None


def _caches() -> tuple[str, ...]:
    """Return the data caches of a core, such as ``L1 48K``, ``L2 1024K``, ``L3 32768K``."""
    found = []
    for index in sorted((_CPU / "cache").glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text("ascii").strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return tuple(found)
