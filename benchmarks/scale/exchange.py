"""What the scripts of the peers read and write. They import this, their library and numpy only.

``data.npz`` has the interactions to learn from, ``user`` and ``item`` (n,), by user and time; the
histories of u users, ``history_user`` and ``history_item`` (h,), by user and time; and rows to
score: ``row_user`` (m,), the row's user among the u, and ``columns`` (m, 1 + k), the items to
score, -1 for none. ``items`` is the number of all items.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
_STARTED = time.monotonic()
_ROWS_AT_ONCE = 1024


def cost_until_now() -> dict[str, float]:
    """Return this process's CPU seconds, wall seconds and peak memory in GiB since it started."""
    return {
        "cpu": round(time.process_time(), 1),
        "seconds": round(time.monotonic() - _STARTED, 1),
        "GiB": round(_peak_kib() / 2**20, 2),
    }


def _peak_kib() -> int:
    """Return the largest resident set; ``ru_maxrss`` may be that of the process that started us."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def read(path: str) -> Arrays:
    with np.load(path) as arrays:
        return dict(arrays)


def score_rows(users: np.ndarray, items: np.ndarray, data: Arrays) -> np.ndarray:
    """Return the rows' scores (m, 1 + k), from vectors of the u users and of all items."""
    scores = np.empty(data["columns"].shape, np.float32)
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        vectors = items[np.maximum(data["columns"][rows], 0)]  # (rows, 1 + k, d)
        scores[rows] = (vectors @ users[data["row_user"][rows]][:, :, None])[:, :, 0]
    return scores


def write(path: str, scores: np.ndarray, cost: dict[str, float], note: str = "") -> None:
    """Write the scores, and what it cost to fit the model."""
    np.savez(path, scores=scores, about=json.dumps({**cost, "note": note}))
