"""Start-up time and memory of a process that opens a bundle and scores once."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.bench.page_cache import evict
from tlrec_edge.errors import BundleError

_PROBE = Path(__file__).with_name("probe.py")
_TIMES = ("import_ms", "open_ms", "first_score_ms", "total_ms", "cpu_ms")
_MEMORY = ("rss_bytes", "pss_bytes", "uss_bytes")
_TIMEOUT = 120
_COLD_RUNS = 3


@dataclass(frozen=True)
class Startup:
    """Medians over fresh processes. Memory is None if it can't be read here."""

    runs: int
    import_ms: float
    open_ms: float
    first_score_ms: float
    total_ms: float
    """From the start of the process to its first score."""
    cpu_ms: float
    rss_bytes: int | None
    pss_bytes: int | None
    uss_bytes: int | None
    cold_ms: float | None = None
    """``total_ms`` with the bundle read from disk; None if the page cache can't be evicted."""
    cold_read_bytes: int | None = None
    """Bytes read from disk in that case."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def measure_startup(bundle: Path, history: list[str], item: str, runs: int) -> Startup:
    """Start ``runs`` fresh processes, after a first one that fills caches and isn't counted.

    Raises BundleError if a process fails.
    """
    request = json.dumps([str(bundle.resolve()), history, item])
    measured = [_start(request) for _ in range(runs + 1)][1:]
    medians: dict[str, Any] = {
        name: statistics.median(run[name] for run in measured) for name in _TIMES
    }
    for name in _MEMORY:
        readable = all(name in run for run in measured)
        medians[name] = int(statistics.median(run[name] for run in measured)) if readable else None
    return Startup(runs, **medians, **_cold(bundle, request, runs))


def _cold(bundle: Path, request: str, runs: int) -> dict[str, Any]:
    """Measure with the bundle read from disk, but Python and the libraries still in the cache."""
    measured = []
    for _ in range(min(runs, _COLD_RUNS)):
        evict(bundle)
        measured.append(_start(request))
    read = statistics.median(run.get("read_bytes", 0) for run in measured)
    if not read:
        return {}
    return {
        "cold_ms": statistics.median(run["total_ms"] for run in measured),
        "cold_read_bytes": int(read),
    }


def _start(request: str) -> dict[str, float]:
    started = time.time()
    # Without -P the script's folder is on the path, and modules here hide others of their names.
    command = [sys.executable, "-P", str(_PROBE)]
    # The new process must import the package that runs now, wherever that lies.
    paths = [str(_PROBE.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            command,
            input=request,
            capture_output=True,
            encoding="utf-8",
            timeout=_TIMEOUT,
            check=True,
            env=environment,
        )
    except (subprocess.SubprocessError, OSError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        raise BundleError(
            f"a fresh process could not score with the bundle ({''.join(reason)}): "
            f"run `tlrec-edge verify {Path(json.loads(request)[0]).name}`"
        ) from error
    measured: dict[str, float] = json.loads(done.stdout)
    return measured | {"total_ms": (measured.pop("scored_at") - started) * 1000}
