"""What a Recommender remembers between calls: user states and counters; its process's memory."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from pathlib import Path

from tlrec_edge.runtime.history import History
from tlrec_edge.search.user_state import UserState

COUNTER_NAMES = (
    "unknown_items",
    "unknown_candidates",
    "unknown_users",
    "fallbacks",
    "clipped_users",
    "cache_hits",
    "cache_misses",
)

MAX_CACHE_BYTES = 64 * 2**20
"""Bytes of cached states, by default: enough for 1,024 histories of 50 items with 50 item-item
weights each, which take 24 bytes a weight."""
_ENTRY_BYTES = 1_200
"""Bytes of an entry's Python objects: its key, the state, and the headers of the state's arrays."""


class StateCache:
    """The most recently used user states, by history and version of the catalogue.

    Holds ``size`` states at most, and not more than ``max_bytes``. Safe to use from many threads.
    """

    def __init__(self, size: int, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._size, self._max_bytes = size, max_bytes
        self._states: OrderedDict[tuple[bytes, int], tuple[UserState, int]] = OrderedDict()
        """Each state, and the bytes that it takes at most."""
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._states)

    def key(self, history: History, version: int) -> tuple[bytes, int] | None:
        """Return the key of a history's state; None if nothing is cached."""
        return (history.digest(), version) if self._size else None

    def get(self, key: tuple[bytes, int]) -> UserState | None:
        """Return a state, which then counts as just used; None if it is not cached."""
        with self._lock:
            entry = self._states.get(key)
            if entry is None:
                return None
            self._states.move_to_end(key)
            return entry[0]

    def put(self, key: tuple[bytes, int], state: UserState) -> None:
        """Add a state, and drop the least recently used ones that no longer fit."""
        cost = _ENTRY_BYTES + state.max_nbytes
        if cost > self._max_bytes:
            return
        with self._lock:
            replaced = self._states.pop(key, None)
            self._states[key] = state, cost
            self._bytes += cost - (replaced[1] if replaced else 0)
            while len(self._states) > self._size or self._bytes > self._max_bytes:
                self._bytes -= self._states.popitem(last=False)[1][1]

    @property
    def nbytes(self) -> int:
        """Size in bytes of the cached states, with their keys and Python objects."""
        with self._lock:
            return sum(_ENTRY_BYTES + state.nbytes for state, _ in self._states.values())

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()


class Counters:
    """Counters that many threads may add to."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def read(self) -> dict[str, int]:
        with self._lock:
            return {name: self._counts[name] for name in COUNTER_NAMES}

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def process_memory() -> dict[str, int]:
    """Return this process's memory in bytes; empty if the system does not report it.

    Private pages are those that the process wrote. Shared pages are unchanged pages of mapped
    files: other processes may use them too, and the system may drop them.
    """
    size = _rollup()
    if not size:
        return {}
    private = size["Private_Dirty"]
    return {"private_bytes": private, "shared_bytes": size["Rss"] - private}


def memory_rollup() -> dict[str, int]:
    """Return RSS, PSS and USS in bytes; empty if the system does not report them."""
    size = _rollup()
    if not size:
        return {}
    private = size["Private_Clean"] + size["Private_Dirty"]
    return {"rss_bytes": size["Rss"], "pss_bytes": size["Pss"], "uss_bytes": private}


def _rollup() -> dict[str, int]:
    try:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, _, value in fields}
