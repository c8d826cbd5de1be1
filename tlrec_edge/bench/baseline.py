"""Hold a run against an earlier one of the same machine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.errors import DataError

_COMPARED_SCENARIOS = ("single-stream", "top-k", "multi-stream")
"""Scenarios whose median says how fast a system is; that of the others hangs on the rate."""
_RESULT_KEYS = {"kind", "bundle", "config", "machine", "noise", "startup", "bytes", "rows"}
_ROW_KEYS = {
    "scenario",
    "state",
    "shape",
    "scored",
    "latency_us",
    "target_qps",
    "saturated",
    "qps",
    "pss_bytes",
}


@dataclass(frozen=True)
class Change:
    """One figure, then and now. ``ratio``: now over what was to be expected, more is worse."""

    what: str
    before: float
    now: float
    ratio: float
    regressed: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Changes:
    """``drift``: how many times as long a fixed loop took on the machine, 1 where it was faster than then."""

    drift: float
    changes: tuple[Change, ...]

    @property
    def regressed(self) -> list[Change]:
        return [change for change in self.changes if change.regressed]

    def to_json(self) -> dict[str, Any]:
        return {"drift": self.drift, "changes": [change.to_json() for change in self.changes]}


def read_result(path: Path) -> dict[str, Any]:
    """Read what ``bench --out`` wrote. Raises DataError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not _is_result(found):
        raise DataError(f"{path} is no result of `tlrec-edge bench --out`")
    result: dict[str, Any] = found
    return result


def _is_result(found: Any) -> bool:
    """Say whether what is read of a result is there, times more than 0."""
    try:
        rows, medians = found["rows"], [row["latency_us"]["p50"] for row in found["rows"]]
        return (
            found.keys() >= _RESULT_KEYS
            and all(
                isinstance(found[name], dict) for name in ("bundle", "config", "machine", "noise")
            )
            and all(row.keys() >= _ROW_KEYS for row in rows)
            and all(0 < median < math.inf for median in medians)
        )
    except (TypeError, KeyError, AttributeError):
        return False


def read_baseline(path: Path) -> dict[str, Any]:
    """Read a result to hold a run against. Raises DataError, where it is of another machine too."""
    found = read_result(path)
    baseline_cpu, this_cpu = found["machine"].get("cpu"), fingerprint().cpu
    if baseline_cpu != this_cpu:
        raise DataError(
            f"{path} is of another machine: {baseline_cpu}, here {this_cpu}; measure a baseline here"
        )
    return found


def compare_with_baseline(
    now: dict[str, Any], before: dict[str, Any], max_regression: float
) -> Changes:
    """Compare medians, bundle bytes and private memory with ``before``; beyond ``max_regression`` is a regression.

    Where the machine itself was slower than then, by the fixed loop, times are expected to be so too. Raises DataError
    where the two runs have no figure in common.
    """
    loops = [run["noise"].get("loop_us") for run in (before, now)]
    drift = max(1.0, loops[1] / loops[0]) if all(loops) else 1.0
    changes = []
    for what, old, new, is_time in _figures(before, now):
        ratio = new / (old * (drift if is_time else 1.0))
        changes.append(Change(what, old, new, ratio, ratio > 1 + max_regression))
    if not changes:
        raise DataError(
            "the baseline has no figure in common with this run; measure the same scenarios and shapes"
        )
    return Changes(drift, tuple(changes))


def _figures(
    before: dict[str, Any], now: dict[str, Any]
) -> Iterator[tuple[str, float, float, bool]]:
    # How fast a disk is, says nothing of a bundle.
    old_rows = {
        _key(row): row
        for row in before["rows"]
        if row["scenario"] in _COMPARED_SCENARIOS and row["state"] != "cold"
    }
    for row in now["rows"]:
        old = old_rows.get(_key(row))
        if old is not None:
            name = f"{row['scenario']}, {row['shape']}, {row['state']}: p50 us"
            yield name, old["latency_us"]["p50"], row["latency_us"]["p50"], True
    for name, path in {
        "bundle bytes": ("bytes",),
        "private memory, bytes": ("startup", "uss_bytes"),
    }.items():
        old, new = (_lookup(run, path) for run in (before, now))
        if old and new:
            yield name, old, new, False


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["scenario"], row["shape"], row["state"]


def _lookup(run: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = run
    for key in path:
        found = (found or {}).get(key)
    return found
