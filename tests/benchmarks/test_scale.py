"""The benchmark of scale: the same seed makes the same tables, of the requested size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import BENCHMARKS
from tlrec_edge.data.prepare import prepare_files

MAKE = BENCHMARKS / "scale" / "make_data.py"


def make(out: Path, form: str) -> list[Path]:
    size = ["--interactions", "2000", "--items", "150", "--format", form]
    subprocess.run([sys.executable, str(MAKE), *size, "--out", str(out)], check=True, timeout=120)
    return [out / f"log.{form}", out / f"items.{form}"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_invented_tables_are_prepared_and_repeat(form: str, tmp_path: Path) -> None:
    log, items = make(tmp_path / "one", form)
    data = prepare_files([log], [items]).dataset
    assert len(data.interactions) == 2000
    assert len(data.items) == 150
    assert set(data.domains) == {"old", "new"}
    assert {path.read_bytes() for path in make(tmp_path / "two", form)} == {
        log.read_bytes(),
        items.read_bytes(),
    }
