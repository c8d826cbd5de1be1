"""Evict a bundle's files from the page cache, so that the next read comes from disk."""

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
    """Ask the operating system to drop the cached pages of a folder's files.

    Pages that this process has mapped are released first. The system keeps pages that another
    process has mapped, and all pages if the files are in memory (tmpfs) or it has no such call:
    check with ``reads_from_disk``.
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
    """Evict the folder, call ``action``, which uses its files, and return whether it read them."""
    evict(folder)
    before = read_bytes()
    action()
    after = read_bytes()
    return before is not None and after is not None and after > before


def read_bytes() -> int | None:
    """Return the bytes this process has read from disk; None if the system doesn't count them."""
    try:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), None)


def _maps(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield address and size of each read-only map of a folder's files, if the system lists maps.

    Writable maps are left out: dropping their pages would lose what was written.
    """
    if _LIBC is None:
        return
    try:
        lines = Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        span, rights, *_, file = [*line.split(maxsplit=5), ""][:6]
        if file.startswith(f"{folder}{os.sep}") and "w" not in rights:
            start, end = (int(number, 16) for number in span.split("-"))
            yield start, end - start
