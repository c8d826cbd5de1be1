"""Compare a run with an earlier one of the same machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import DataError

_COMPARED_SCENARIOS = ("single-stream", "top-k", "multi-stream")
"""Scenarios whose median measures the speed of a system; in the others it depends on the load."""
_COMPARED_SIZES = {
    "bundle bytes": ("bytes",),
    "private memory, bytes": ("startup", "uss_bytes"),
}
"""Name of a figure -> its path in the result."""
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
    """One figure in the baseline and now."""

    what: str
    before: float
    now: float
    ratio: float
    """The new figure divided by the expected one; above 1 is worse."""
    regressed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Changes:
    """The changes in all figures that a run and its baseline have in common."""

    drift: float
    """Time of a fixed loop, divided by its time in the baseline; 1 if the machine is not slower."""
    changes: tuple[Change, ...]

    @property
    def regressed(self) -> list[Change]:
        """The figures that are worse than allowed."""
        return [change for change in self.changes if change.regressed]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {"drift": self.drift, "changes": [change.to_json() for change in self.changes]}


class _Figure(NamedTuple):
    name: str
    before: float
    now: float
    is_time: bool


def read_result(path: Path) -> dict[str, Any]:
    """Read a file that ``bench --out`` wrote. Raises DataError if it is anything else."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not _is_result(found):
        raise DataError(f"{path} is not a result of `tlrec-edge bench --out`")
    result: dict[str, Any] = found
    return result


def _is_result(found: Any) -> bool:
    """Return whether a result has all entries that are read, and times above 0."""
    try:
        sections = [found[name] for name in ("bundle", "config", "machine", "noise")]
        rows, medians = found["rows"], [row["latency_us"]["p50"] for row in found["rows"]]
        return (
            found.keys() >= _RESULT_KEYS
            and all(isinstance(section, dict) for section in sections)
            and all(row.keys() >= _ROW_KEYS for row in rows)
            and all(0 < median < math.inf for median in medians)
        )
    except (TypeError, KeyError, AttributeError):
        return False


def read_baseline(path: Path) -> dict[str, Any]:
    """Read a result to compare a run with.

    Raises DataError if it is not a result, or was measured on a machine with another CPU.
    """
    found = read_result(path)
    baseline_cpu, this_cpu = found["machine"].get("cpu"), fingerprint().cpu
    if baseline_cpu != this_cpu:
        raise DataError(
            f"{path} was measured on another machine ({baseline_cpu}; this one has {this_cpu}): "
            "measure a baseline here"
        )
    return found


def compare_with_baseline(
    now: dict[str, Any], before: dict[str, Any], max_regression: float
) -> Changes:
    """Compare median times, bundle bytes and private memory of two results.

    A figure regressed if it is worse by more than the fraction ``max_regression``. If the machine
    itself is slower than before, measured by a fixed loop, times are expected to be longer by that
    factor. Raises DataError if the two results have no figure in common.
    """
    loops = [result["noise"].get("loop_us") for result in (before, now)]
    drift = max(1.0, loops[1] / loops[0]) if all(loops) else 1.0
    changes = []
    for figure in _figures(before, now):
        ratio = figure.now / (figure.before * (drift if figure.is_time else 1.0))
        regressed = ratio > 1 + max_regression
        changes.append(Change(figure.name, figure.before, figure.now, ratio, regressed))
    if not changes:
        raise DataError(
            "the baseline has no figure in common with this run: measure the same scenarios and "
            "shapes"
        )
    return Changes(drift, tuple(changes))


def _figures(before: dict[str, Any], now: dict[str, Any]) -> Iterator[_Figure]:
    old_rows = {_key(row): row for row in before["rows"] if _is_compared(row)}
    for row in now["rows"]:
        old_row = old_rows.get(_key(row))
        if old_row is not None:
            name = f"{row['scenario']}, {row['shape']}, {row['state']}: p50 us"
            yield _Figure(name, old_row["latency_us"]["p50"], row["latency_us"]["p50"], True)
    for name, path in _COMPARED_SIZES.items():
        old, new = (_lookup(result, path) for result in (before, now))
        if old and new:
            yield _Figure(name, old, new, False)


def _is_compared(row: dict[str, Any]) -> bool:
    # Cold requests measure the disk rather than the bundle.
    return row["scenario"] in _COMPARED_SCENARIOS and row["state"] != "cold"


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["scenario"], row["shape"], row["state"]


def _lookup(result: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = result
    for key in path:
        found = (found or {}).get(key)
    return found
