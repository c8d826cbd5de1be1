"""What a Recommender remembers between calls: recent user states, counts, and the memory of its process."""

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
    """The most recently used user states, by history; bounded, and safe from many threads."""

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
        """The bytes of the states' arrays; those of a history's ids are its own."""
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

    def add(self, **more: int) -> None:
        with self._lock:
            for name, count in more.items():
                self._counts[name] += count

    def read(self) -> dict[str, int]:
        with self._lock:
            return {name: self._counts[name] for name in COUNTER_NAMES}

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def process_memory() -> dict[str, int]:
    """Return this process's memory in bytes, or nothing where the system does not tell.

    Private is what it wrote; shared are clean pages of mapped files, which other workers use as well and the system may
    drop.
    """
    size = _rollup()
    if not size:
        return {}
    return {
        "private_bytes": size["Private_Dirty"],
        "shared_bytes": size["Rss"] - size["Private_Dirty"],
    }


def memory_rollup() -> dict[str, int]:
    """Return RSS, PSS and USS (private pages, clean and dirty) in bytes, or nothing where the system does not tell."""
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
    return {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in lines)
    }
