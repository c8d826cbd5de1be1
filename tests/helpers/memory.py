"""What serving does to the memory of a process that does nothing else: run it in a new one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tlrec_edge import Recommender

Result = TypeVar("Result")


def in_new_process(work: Callable[[Path], Result], path: Path) -> Result:
    """Run ``work`` apart from the memory that other tests of this process have freed."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        return executor.submit(work, path).result()


def private_bytes_of_many_requests(path: Path) -> tuple[int, int]:
    """Return the private bytes after 20,000 and after 80,000 requests with a full cache."""
    with Recommender.open(path, cache=256) as rec:

        def serve(start: int, count: int) -> int:
            for at in range(start, start + count):
                history = [f"SKU{(at * 7 + i) % 30_000:08d}" for i in range(20)]
                rec.score(history, [f"SKU{(at + i) % 30_000:08d}" for i in range(100)])
                if at % 50 == 0:
                    rec.recommend(history, 10)
            return rec.memory().get("private_bytes", 0)

        return serve(0, 20_000), serve(20_000, 60_000)


def memory_of_long_ids(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return ``memory()`` after 200 and after 8,200 histories of ids that are 2,000 long."""
    with Recommender.open(path, cache=1_000_000) as rec:

        def serve(start: int, count: int) -> dict[str, int]:
            for at in range(start, start + count):
                known = [f"SKU{(at * 7 + i * i) % 30_000:08d}" for i in range(20)]
                rec.recommend([*(f"{at}-{i}-" + "x" * 2000 for i in range(20)), *known], 3)
            return rec.memory()

        return serve(0, 200), serve(200, 8000)
