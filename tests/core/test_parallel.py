"""Parallel jobs return in order and use one thread each; their errors are raised."""

from __future__ import annotations

import os

import pytest

from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.errors import DataError


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_their_jobs(processes: int) -> None:
    assert list(parallel_map(abs, [-3, 2, -1], processes)) == [3, 2, 1]


def test_child_processes_have_one_thread_and_this_process_is_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(parallel_map(os.getenv, ["OMP_NUM_THREADS"] * 2, 2)) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_job_is_raised_here(processes: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(_invert, [1, 0], processes))
    with pytest.raises(DataError, match="the message"):
        list(parallel_map(_refuse, ["the message", ""], processes))


def _invert(number: int) -> float:
    return 1 / number


def _refuse(message: str) -> None:
    raise DataError(message)
