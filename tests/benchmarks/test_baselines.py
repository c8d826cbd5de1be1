"""The benchmark of simple baselines: it ranks all of them, and sparse EASE next to exact EASE."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.paths import BENCHMARKS
from tlrec_edge.data.store import save_dataset
from tlrec_edge.linear.baselines import SIMPLE_BASELINES
from tlrec_edge.linear.sparse_ease import EXACT_EASE_LIMIT

MEASURE = BENCHMARKS / "baselines" / "measure.py"


def printed(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, str]:
    """Return the cells of the last table by name of the row."""
    monkeypatch.setattr("sys.argv", [str(MEASURE), *arguments])
    runpy.run_path(str(MEASURE), run_name="__main__")
    lines = capsys.readouterr().out.strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return dict(rows)


def test_it_prints_every_baseline_and_sparse_ease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_dataset(synthetic.dataset(), tmp_path / "data")
    target = f"{tmp_path / 'data'}:small"
    rows = printed(target, monkeypatch=monkeypatch, capsys=capsys)
    assert {baseline.name for baseline in SIMPLE_BASELINES} <= set(rows)
    negatives, everything = rows["ease"].split(" / ")
    assert 0 < float(everything) < float(negatives) < 1
    found = printed(target, "--sparse", monkeypatch=monkeypatch, capsys=capsys)
    assert found["ease"] == rows["ease"]
    assert found["itemcf"] == rows["itemcf"]
    exact, sparse = (float(found[name].split(" / ")[0]) for name in ("ease", "ease, sparse"))
    assert sparse == pytest.approx(exact, abs=0.01)
    assert EXACT_EASE_LIMIT > 0
