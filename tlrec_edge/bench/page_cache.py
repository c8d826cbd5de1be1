"""A bundle's files and the page cache: put them out of it, so that the next read comes from disk."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_MADV_DONTNEED = 4
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def evict(folder: Path) -> None:
    """Ask the system to drop the pages of a folder's files, and of what this process has mapped of them.

    It keeps those that another process has mapped, and all of them where files are in memory (tmpfs) or where it has no
    such call: ``reads_from_disk`` tells.
    """
    for start, size in _maps(folder.resolve()):
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)
    if hasattr(os, "posix_fadvise"):
        for file in folder.iterdir():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def reads_from_disk(folder: Path, action: Callable[[], object]) -> bool:
    """Say whether ``action``, which uses the folder's files, has to read them anew after ``evict``."""
    evict(folder)
    before = read_bytes()
    action()
    after = read_bytes()
    return before is not None and after is not None and after > before


def read_bytes() -> int | None:
    """Return how much this process has read from disk; None where the system does not tell."""
    try:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), None)


def _maps(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield start and size of the read-only maps of a folder's files; none where the system does not tell."""
    try:
        lines = (
            Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines()
            if _LIBC
            else []
        )
    except OSError:
        return
    for line in lines:
        span, rights, *_, file = [*line.split(maxsplit=5), ""][:6]
        if (
            file.startswith(f"{folder}{os.sep}") and "w" not in rights
        ):  # what was written there would be lost
            start, end = (int(number, 16) for number in span.split("-"))
            yield start, end - start
