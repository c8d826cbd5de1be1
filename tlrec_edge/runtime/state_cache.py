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


class StateCache:
    """The most recently used user states, by history and version of the catalogue.

    Bounded, and safe to use from many threads.
    """

    def __init__(self, size: int, max_history: int) -> None:
        self._size, self._max_history = size, max_history
        self._states: OrderedDict[tuple[History, int], UserState] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, history: History, version: int) -> UserState | None:
        if not self._size:
            return None
        with self._lock:
            state = self._states.get((history, version))
            if state is not None:
                self._states.move_to_end((history, version))
            return state

    def put(self, history: History, version: int, state: UserState) -> None:
        # A key holds its history's ids, so a very long one is not worth its memory.
        if len(history.items) > self._max_history or not self._size:
            return
        with self._lock:
            self._states[history, version] = state
            while len(self._states) > self._size:
                self._states.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Size in bytes of the cached states, without the histories that are their keys."""
        with self._lock:
            return sum(state.nbytes for state in self._states.values())

    def clear(self) -> None:
        with self._lock:
            self._states.clear()

    def after_fork(self) -> None:
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
