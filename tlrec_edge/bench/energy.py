"""Energy by RAPL, where the machine shows it: of the whole package, whoever uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tlrec_edge.bench.latency import Times

_ZONES = Path("/sys/class/powercap")


def metered(run: Callable[[], Times], zones: Path = _ZONES) -> Times:
    """Return what ``run`` returns, with the joules that the machine used meanwhile; None: not readable here."""
    before = _read(zones)
    times = run()
    return replace(times, joules=_used(before, _read(zones), zones))


def _read(zones: Path) -> dict[str, int]:
    """Return microjoules by package; of its parts none, they are in it."""
    found = {}
    for zone in sorted(zones.glob("intel-rapl:*")):
        if zone.name.count(":") == 1:
            try:
                found[zone.name] = int((zone / "energy_uj").read_text("ascii"))
            except (OSError, ValueError):
                return {}  # since 2020 only root may read it
    return found


def _used(before: dict[str, int], after: dict[str, int], zones: Path) -> float | None:
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for name, start in before.items():
        more = after[name] - start
        total += (
            more
            if more >= 0
            else more + int((zones / name / "max_energy_range_uj").read_text("ascii"))
        )
    return total / 1e6
