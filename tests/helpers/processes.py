"""An executor that runs jobs in this process as if it were another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from pickle import loads
from typing import Any


class PicklingExecutor:
    """A ProcessPoolExecutor that runs in this process, but passes jobs and results by pickle."""

    def __init__(self, max_workers: int, context: Any) -> None:
        assert max_workers > 1, "jobs of one process are not pickled"

    def __enter__(self) -> PicklingExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        for job in jobs:
            call, argument = _copy((work, job))
            yield _copy(call(argument))


def _copy(value: Any) -> Any:
    return loads(ForkingPickler.dumps(value))
