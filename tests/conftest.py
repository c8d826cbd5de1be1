"""Settings of every test run: one thread for small matrices, the same examples on any machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Before numpy and torch are imported: on small matrices more threads only wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

pytest.register_assert_rewrite("helpers")

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests of many cases counted."""
    from helpers.counts import COUNTED, SAID

    counts = [*SAID, *(f"{number} {cases}" for cases, number in COUNTED.items())]
    if counts:
        terminalreporter.section("counts")
        terminalreporter.write_line("\n".join(counts))


@pytest.fixture(scope="session", autouse=True)
def writable_bundles() -> Iterator[None]:
    """Let the files of bundles be writable: many tests damage them, and not only root runs tests.

    `tests/core/test_folders.py` writes read-only files, as users do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlrec_edge.core.folders._READ_BITS", 0o666)
        yield


@pytest.fixture(scope="module")
def small_batches() -> Iterator[None]:
    """Let distillation use a quarter of its batch size, and half of its validation batches.

    The synthetic models are small too.
    """
    distil = importlib.import_module("tlrec_edge.quantize.distil")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "BATCH", 64)
        patch.setattr(distil, "VALIDATION_BATCHES", 4)
        yield


@pytest.fixture(params=["pickled", pytest.param("spawned", marks=pytest.mark.slow)])
def two_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs run in two processes; the quick tests only pickle what would pass between them.

    A process that is spawned imports torch and pandas again.
    """
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    if request.param == "pickled":
        from helpers.processes import PicklingExecutor

        monkeypatch.setattr("tlrec_edge.core.parallel.ProcessPoolExecutor", PicklingExecutor)
