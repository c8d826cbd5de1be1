"""The example that asks whether the lab is right runs, in a small way, and names every run."""

from __future__ import annotations

from types import ModuleType

import pytest

from helpers.paths import BENCHMARKS, GOLDEN
from helpers.scripts import load_script


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    return load_script(BENCHMARKS / "latency_lab" / "measure.py")


def test_stall(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    measure.main(["stall", "--runs", "1", "--seconds", "0.4"])
    said = capsys.readouterr().out
    assert said.startswith("truth: p99 196")
    assert "of 1 runs" in said


def test_drivers(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    measure.main(["drivers", "--runs", "1", "--seconds", "0.2"])
    assert capsys.readouterr().out.count("server at 50 a second, p99: ours") == 2


def test_compare(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    measure.main(["compare", "--runs", "1", "--seconds", "0.02", "--bundle", str(GOLDEN)])
    said = capsys.readouterr().out
    assert "itself, run 0: " in said
    assert "10 % slower: 'slower' in" in said
