"""How steadily the machine runs: what to know before trusting its times."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.bench.latency import percentile

_REPEATS, _LOOP_LENGTH = 300, 20_000
_MAX_SPREAD = 0.25
_MAX_STOLEN = 0.02
_MAX_OTHERS = 0.1
_COPY_BYTES = 1 << 26
"""With its copy four times a large cache, so that memory is measured and not the cache."""
_COPIES = 5


@dataclass(frozen=True)
class Noise:
    """How unsteady the machine was during a run. A fraction that can't be read here is None."""

    spread: float
    """By how much the slowest tenth of identical loops exceeds the fastest one, as a fraction."""
    stolen: float | None
    """Fraction of CPU time that the host of this virtual machine took."""
    others: float | None = None
    """Fraction of CPU time that other processes used."""
    loop_us: float | None = None
    """Time of the fastest loop in microseconds, which measures the speed of the machine itself."""

    @property
    def noisy(self) -> bool:
        """Whether the times of the run can't be trusted."""
        return (
            self.spread > _MAX_SPREAD
            or (self.stolen or 0.0) > _MAX_STOLEN
            or (self.others or 0.0) > _MAX_OTHERS
        )

    def to_json(self) -> dict[str, Any]:
        """Return the noise as JSON values."""
        return asdict(self) | {"noisy": self.noisy}

    def __str__(self) -> str:
        parts = [f"identical loops differ by {self.spread:.0%}"]
        if self.stolen is not None:
            parts.append(f"the host took {self.stolen:.1%} of CPU time")
        if self.others is not None:
            parts.append(f"other processes used {self.others:.0%}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Ticks:
    """CPU time so far, in clock ticks: of all cores since boot, and of this process."""

    total: int
    busy: int
    stolen: int
    this_process: float
    """Includes child processes that have ended."""


class NoiseMeter:
    """Measures the noise between its creation and ``stop``."""

    def __init__(self) -> None:
        self._before, self._loops = read_ticks(), _time_loops()

    def stop(self) -> Noise:
        """Return the noise since the start."""
        loops, after = _time_loops(), read_ticks()
        spread = max(percentile(times, 0.9) / times[0] - 1 for times in (self._loops, loops))
        fastest = min(self._loops[0], loops[0]) / 1000
        return Noise(spread, *cpu_shares(self._before, after), fastest)


def read_ticks() -> Ticks | None:
    """Return the CPU time spent so far; None if the system doesn't report it."""
    try:
        line = Path("/proc/stat").read_text("ascii").splitlines()[0]
        ticks = [int(word) for word in line.split()[1:9]]
        rate = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    if len(ticks) != 8:
        return None
    idle, stolen = ticks[3] + ticks[4], ticks[7]
    return Ticks(sum(ticks), sum(ticks) - idle - stolen, stolen, rate * sum(os.times()[:4]))


def cpu_shares(before: Ticks | None, after: Ticks | None) -> tuple[float | None, float | None]:
    """Return the fractions of CPU time between two readings taken by the host and by others."""
    if before is None or after is None or after.total <= before.total:
        return None, None
    total = after.total - before.total
    others = after.busy - before.busy - (after.this_process - before.this_process)
    return (after.stolen - before.stolen) / total, max(0.0, others / total)


def copy_bandwidth(size: int = _COPY_BYTES) -> float:
    """Return the bytes per second that one core reads and writes when it copies ``size`` bytes."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    fastest = float("inf")
    for _ in range(_COPIES):
        started = time.perf_counter()
        np.copyto(target, source)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size / fastest


def _time_loops() -> list[float]:
    """Return the durations of identical loops in nanoseconds, ascending."""
    durations: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter_ns()
        sum(range(_LOOP_LENGTH))
        durations.append(time.perf_counter_ns() - started)
    return sorted(durations)
