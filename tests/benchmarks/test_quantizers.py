"""The benchmark of quantizers: libraries that are not installed are listed."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.paths import BENCHMARKS
from helpers.scripts import load_script
from tlrec_edge.data.store import save_dataset

FOLDER = BENCHMARKS / "quantizers"


def test_every_contender_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_dataset(synthetic.dataset(), tmp_path / "data")
    synthetic.model().save(tmp_path / "model")
    monkeypatch.syspath_prepend(str(FOLDER))
    compare = load_script(FOLDER / "compare.py")
    monkeypatch.setattr(compare, "ROUNDS", 2)
    monkeypatch.setattr(compare, "measure_costs", partial(compare.measure_costs, rounds=2))
    monkeypatch.setattr(
        sys, "argv", ["compare.py", str(tmp_path / "model"), str(tmp_path / "data"), "small"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the quantizers
        compare.main()
    shown = capsys.readouterr().out
    for name in (
        "quantize_dynamic",
        "static QDQ, MinMax",
        "static QDQ, Entropy",
        "ours, int8 rows",
        "ours, int4 rows",
    ):
        assert f"│ {name} " in shown
    for package, module in (("Olive", "olive"), ("neural-compressor", "onnx_neural_compressor")):
        lines = [line for line in shown.splitlines() if f"{package}, static" in line]
        assert len(lines) == 1
        if find_spec(module) is None:
            assert lines[0].startswith(
                f"{package}, static: not installed (No module named '{module}'"
            )
