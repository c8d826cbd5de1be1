"""How steadily a machine runs: what to know before a time is believed."""

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
"""Bytes: with its copy four times a large cache."""


@dataclass(frozen=True)
class Noise:
    """How unsteady the machine was.

    ``spread``: by how much the slowest tenth of equal loops exceeds the fastest. Shares of the machine's CPU time
    during the run, None where they are not readable: ``stolen`` by the host, ``others`` used by other processes.
    ``loop_us``: the fastest of the equal loops, which tells how fast the machine itself ran.
    """

    spread: float
    stolen: float | None
    others: float | None = None
    loop_us: float | None = None

    @property
    def noisy(self) -> bool:
        return (
            self.spread > _MAX_SPREAD
            or (self.stolen or 0.0) > _MAX_STOLEN
            or (self.others or 0.0) > _MAX_OTHERS
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"noisy": self.noisy}

    def __str__(self) -> str:
        parts = [f"equal loops differ by {self.spread:.0%}"]
        if self.stolen is not None:
            parts.append(f"the host took {self.stolen:.1%} of CPU time")
        if self.others is not None:
            parts.append(f"other processes used {self.others:.0%}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Ticks:
    """CPU time of all cores since the machine started, in ticks, and of this process with its ended children."""

    total: int
    busy: int
    stolen: int
    own: float


class NoiseMeter:
    """Watches the machine from its making to ``stop``."""

    def __init__(self) -> None:
        self._before, self._loops = read_ticks(), _loops()

    def stop(self) -> Noise:
        """Return the noise since the start."""
        loops, after = _loops(), read_ticks()
        spread = max(percentile(times, 0.9) / times[0] - 1 for times in (self._loops, loops))
        fastest = min(self._loops[0], loops[0]) / 1000
        return Noise(spread, *cpu_shares(self._before, after), fastest)


def read_ticks() -> Ticks | None:
    """Return the CPU time spent so far; None where the system does not tell."""
    try:
        ticks = [
            int(word) for word in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]
        ]
        rate = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    if len(ticks) != 8:
        return None
    idle, stolen = ticks[3] + ticks[4], ticks[7]
    return Ticks(sum(ticks), sum(ticks) - idle - stolen, stolen, rate * sum(os.times()[:4]))


def cpu_shares(before: Ticks | None, after: Ticks | None) -> tuple[float | None, float | None]:
    """Return which shares of all CPU time between two readings the host and other processes took."""
    if before is None or after is None or after.total <= before.total:
        return None, None
    total = after.total - before.total
    others = after.busy - before.busy - (after.own - before.own)
    return (after.stolen - before.stolen) / total, max(0.0, others / total)


def copy_bandwidth(size: int = _COPY_BYTES) -> float:
    """Return the bytes a second that one core reads and writes when it copies ``size`` bytes: the best of five."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * size / best


def _loops() -> list[float]:
    """Return how long each of many equal loops took, in nanoseconds, rising."""
    durations: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter_ns()
        sum(range(_LOOP_LENGTH))
        durations.append(time.perf_counter_ns() - started)
    return sorted(durations)
