"""The number of CPU cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores that the operating system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores() -> float | None:
    """Return the container's CPU quota in cores (cgroup v2, then v1), or None if it has none."""
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
    """Return the number of cores this process may use, limited by its container's CPU quota."""
    quota = quota_cores()
    return usable_cores() if quota is None else max(1, min(usable_cores(), math.ceil(quota)))
