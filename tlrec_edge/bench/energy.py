"""Energy by RAPL, on machines that expose it: the energy of all CPU packages, for all processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tlrec_edge.bench.latency import Times

_ZONES = Path("/sys/class/powercap")


def metered(run: Callable[[], Times], zones: Path = _ZONES) -> Times:
    """Call ``run`` and add the joules that the machine used; None if they can't be read."""
    before = _read(zones)
    times = run()
    return replace(times, joules=_used(before, _read(zones), zones))


def _read(zones: Path) -> dict[str, int]:
    """Return microjoules by package. Its parts are left out: the package includes them."""
    counters = {}
    for zone in sorted(zones.glob("intel-rapl:*")):
        if zone.name.count(":") == 1:
            try:
                counters[zone.name] = int((zone / "energy_uj").read_text("ascii"))
            except (OSError, ValueError):
                return {}  # since 2020 only root may read it
    return counters


def _used(before: dict[str, int], after: dict[str, int], zones: Path) -> float | None:
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for name, start in before.items():
        used = after[name] - start
        if used < 0:  # the counter has wrapped around
            used += int((zones / name / "max_energy_range_uj").read_text("ascii"))
        total += used
    return total / 1e6
