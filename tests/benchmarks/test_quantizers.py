"""The benchmark of quantizers: libraries that are not installed are listed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from helpers import synthetic
from helpers.paths import BENCHMARKS
from tlrec_edge.data.store import save_dataset

SCRIPT = BENCHMARKS / "quantizers" / "compare.py"


def test_every_contender_is_measured(tmp_path: Path) -> None:
    save_dataset(synthetic.dataset(), tmp_path / "data")
    synthetic.model().save(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "model"), str(tmp_path / "data"), "small"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "150"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in (
        "quantize_dynamic",
        "static QDQ, MinMax",
        "static QDQ, Entropy",
        "ours, int8 rows",
        "ours, int4 rows",
    ):
        assert f"│ {name} " in done.stdout
    for package, module in (("Olive", "olive"), ("neural-compressor", "onnx_neural_compressor")):
        lines = [line for line in done.stdout.splitlines() if f"{package}, static" in line]
        assert len(lines) == 1
        if find_spec(module) is None:
            assert lines[0].startswith(
                f"{package}, static: not installed (No module named '{module}'"
            )
