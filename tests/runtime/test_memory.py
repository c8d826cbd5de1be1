"""The memory of a recommender is reported, bounded, and does not grow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import bundles
from helpers.memory import (
    in_new_process,
    memory_of_long_ids,
    private_bytes_of_many_requests,
)
from tlrec_edge import Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.core import cpu_count


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "bundle"
    bundles.build(path)
    return path


def test_memory_is_reported_by_purpose(path: Path) -> None:
    with Recommender.open(path, cache=2) as rec:
        before = rec.memory()
        assert before["mapped"] == sum(
            array.nbytes for array in rec._open().bundle._arrays.values()
        )
        assert (before["states"], before["items"]) == (0, 0)
        for row in range(6):
            rec.recommend([f"i{row}", f"i{row + 1}"], 3)
        used = rec.memory()
        assert 0 < used["states"] < 20_000  # two states, as the cache allows
        assert used["ids"] > before["ids"]
        rec.add_items({"new": {"title": "red lamp", "price": 2.0, "colour": "red"}})
        assert rec.memory()["items"] > 0
        if os.path.exists("/proc/self/smaps_rollup"):
            assert used["private_bytes"] > 0


@pytest.mark.parametrize(
    ("granted", "expected"),
    [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 8), ("nonsense", 8), (None, 8)],
)
def test_threads_do_not_exceed_the_quota(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str | None, expected: int
) -> None:
    monkeypatch.setattr(cpu_count, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if granted:
        (tmp_path / "cpu.max").write_text(granted + "\n", "ascii")
    assert cpu_count.cores_within_quota() == expected
    with Recommender.open(path, threads=64) as rec:
        assert rec._threads == expected


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path) -> None:
    synthesize(tmp_path / "b", SynthConfig(30_000, dim=16, interest=4))
    warm, after = in_new_process(private_bytes_of_many_requests, tmp_path / "b")
    assert after - warm < 2_000_000


@pytest.mark.slow
def test_long_ids_do_not_grow_the_caches(tmp_path: Path) -> None:
    """The system sees no more than the bytes that the caches report, and their bounds."""
    synthesize(tmp_path / "b", SynthConfig(30_000, dim=16, interest=4, wide=50))
    before, after = in_new_process(memory_of_long_ids, tmp_path / "b")
    if "private_bytes" not in before:
        pytest.skip("the system does not report memory")
    assert after["states"] <= 64 * 2**20
    reported = sum(after[name] - before[name] for name in ("states", "ids"))
    grown = after["private_bytes"] - before["private_bytes"]
    assert 0.5 * reported < grown < 1.3 * reported + 4_000_000, (before, after)
