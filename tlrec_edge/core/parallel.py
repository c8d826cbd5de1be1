"""Independent jobs side by side: one process and one thread for each core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Job], Result], jobs: Sequence[Job], processes: int | None = None
) -> Iterator[Result]:
    """Yield the result of each job, in their order, as it is done; ``work`` is a function of a module.

    ``processes`` None: one for each core; 1 runs the jobs in this process. An error of a job is raised here, and jobs
    that have not begun are dropped.
    """
    count = min(processes or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        yield from map(work, jobs)
        return
    with single_threaded(), ProcessPoolExecutor(count, get_context("spawn")) as workers:
        yield from workers.map(work, jobs)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let child processes compute with one thread each: small matrices gain nothing from more."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
