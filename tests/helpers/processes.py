"""Child processes without their start: each would import torch and pandas again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from pickle import loads
from typing import Any

import pytest


class _InlineExecutor:
    """A ProcessPoolExecutor that runs in this process, but passes jobs and results by pickle."""

    def __init__(self, max_workers: int, context: Any) -> None:
        assert max_workers > 1, "jobs of one process are not pickled"

    def __enter__(self) -> _InlineExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        for job in jobs:
            call, argument = _copy((work, job))
            yield _copy(call(argument))


def _copy(value: Any) -> Any:
    return loads(ForkingPickler.dumps(value))


def run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `parallel_map` run its jobs here, two at a time on any machine as far as it knows."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("tlrec_edge.core.parallel.ProcessPoolExecutor", _InlineExecutor)
