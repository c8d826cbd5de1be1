"""The example that holds onnxruntime's quantizers beside row-wise tables runs and prints its table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tlrec_edge.data.store import save_dataset

from . import train_fixtures

SCRIPT = Path(__file__).parents[1] / "examples" / "quantizers" / "compare.py"


def test_every_contender_is_measured(tmp_path: Path) -> None:
    save_dataset(train_fixtures.dataset(), tmp_path / "data")
    train_fixtures.model().save(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "model"), str(tmp_path / "data"), "small"],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "150"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("quantize_dynamic", "static QDQ, MinMax", "static QDQ, Entropy", "row-wise int8", "row-wise int4"):
        assert name in done.stdout
