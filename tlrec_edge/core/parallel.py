"""Run independent jobs in parallel processes of one thread each."""

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
    """Yield the results of the jobs in order, each as soon as it and those before it are done.

    ``work`` must be a module-level function. ``processes`` is the number of processes; None means
    one per core, and 1 runs the jobs in this process. An exception in a job is raised here, and
    the jobs that have not started are dropped.
    """
    count = min(processes or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        yield from map(work, jobs)
        return
    with single_threaded(), ProcessPoolExecutor(count, get_context("spawn")) as workers:
        yield from workers.map(work, jobs)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit linear algebra in child processes to one thread: more gain little on small matrices."""
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
