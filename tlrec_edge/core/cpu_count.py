"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many cores this process is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota_cores() -> float | None:
    """Return the CPU quota of a container in cores (cgroup v2, then v1); None where there is none."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        try:
            quota = (CGROUP / "cpu/cpu.cfs_quota_us").read_text("ascii").strip()
            period = (CGROUP / "cpu/cpu.cfs_period_us").read_text("ascii").strip()
        except OSError:
            return None
    try:
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def cores_within_quota() -> int:
    """Return how many cores this process may use, within its container's CPU quota."""
    quota = quota_cores()
    return usable_cores() if quota is None else max(1, min(usable_cores(), math.ceil(quota)))
