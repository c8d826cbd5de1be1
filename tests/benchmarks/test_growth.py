"""The benchmark of growth: it runs at a small size, fits powers correctly, and draws them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from helpers.paths import BENCHMARKS
from helpers.scripts import load_script


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    return load_script(BENCHMARKS / "growth" / "measure.py")


def test_it_measures_every_size_and_draws_it(
    measure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure.main(["--items", "1k", "400", "--seconds", "0.02", "--out", str(tmp_path)])
    assert found["sizes"] == json.loads((tmp_path / "growth.json").read_text())["sizes"]
    assert [row["items"] for row in found["sizes"]] == [400, 1000]
    assert all(task["us"] > 0 for row in found["sizes"] for task in row["tasks"].values())
    said = capsys.readouterr().out
    assert "| 1,000 |" in said
    drawn = (tmp_path / "growth.svg").read_text()
    assert all(label in drawn for label in measure.TASKS.values())


def test_powers(measure: ModuleType) -> None:
    sizes, time = [10_000, 100_000, 1_000_000], {"request": 0.0, "index": 0.5, "exact": 1.0}
    found = measure.slopes(sizes, lambda items, task: 3.0 * items ** time[task])
    assert found == pytest.approx(time, abs=1e-9)
    assert [measure.count(text) for text in ("10k", "1M", "1.5m", "250")] == [
        10_000,
        10**6,
        1_500_000,
        250,
    ]
