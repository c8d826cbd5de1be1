"""The benchmark of kernels: correct products only, and optional libraries may be missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from helpers.paths import ROOT
from helpers.scripts import benchmarks_on_path


@pytest.fixture
def kernels() -> Iterator[Any]:
    with benchmarks_on_path():
        from benchmarks.kernels import measure, scans

        yield measure, scans


def test_it_measures_what_is_there_and_names_the_rest() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.kernels.measure",
        "--rounds",
        "2",
        "--sizes",
        "1300x16",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {
        line.split("|")[1].strip(): line
        for line in done.stdout.splitlines()
        if line.startswith("| ")
    }
    assert "1,280 x 16 bytes" in rows
    for name in ("onnxruntime u8", "numpy"):
        assert rows[name].endswith("| all products |")
    for name in ("numkong", "LiteRT"):
        assert "not measured: No module named" in rows[name]
    assert rows["onnxruntime, bound"].split("|")[3].strip() == "1.00"


@pytest.mark.parametrize("name", ["onnxruntime u8", "numpy"])
def test_scans_give_the_products_of_the_ends_of_the_range(kernels: Any, name: str) -> None:
    measure, scans = kernels
    rows = np.full((256, 16), 127, np.int8)
    rows[::2] = -127
    for query in (np.full(16, -127, np.int8), np.full(16, 127, np.int8), np.zeros(16, np.int8)):
        truth = rows.astype(np.int32) @ query.astype(np.int32)
        assert measure._compare(scans.SCANS[name](rows)(query), truth) == "all products"


def test_wrong_products_are_not_timed(kernels: Any) -> None:
    truth = np.arange(256)
    for products, maxima in ((truth + 1, truth[[127, 255]]), (truth, truth[[126, 255]])):
        with pytest.raises(SystemExit, match="differ from numpy's"):
            kernels[0]._compare((products, maxima), truth)
    assert kernels[0]._compare(np.arange(251, 256), truth).startswith("best 100, 50%")
