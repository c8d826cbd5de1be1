"""A score has the same bits alone, in a batch and in any order, whatever kernels BLAS uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import bits_bundles, bundles, check_bits
from helpers.kernels import KERNELS, with_kernel
from tlrec_edge import Recommender


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return bits_bundles.write_all(tmp_path_factory.mktemp("bits"))


@pytest.fixture(scope="module")
def answers() -> set[str]:
    """Return the hashes of the answers of all kernels, which must be one."""
    return set()


@pytest.mark.parametrize("kernel", KERNELS)
def test_answers_have_the_same_bits_with_every_kernel(
    folders: list[Path], answers: set[str], kernel: str
) -> None:
    command = [sys.executable, check_bits.__file__, *map(str, folders)]
    done = subprocess.run(
        command, env=with_kernel(kernel, os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers.add(done.stdout)
    assert len(answers) == 1, "a stored user's scores depend on the kernel"


def test_cosines_of_very_wide_vectors_are_exact(tmp_path: Path) -> None:
    """A sum of more than 1,040 products of large entries is no longer exact in float32."""
    bundles.build(tmp_path / "b", d=1101)
    rng = np.random.default_rng(0)
    rows = rng.choice([-127, 126, 127], (80, 1101), p=[0.02, 0.49, 0.49]).astype(np.int8)
    bundles.replace_array(tmp_path / "b", "history_rows.npy", rows)
    with Recommender.open(tmp_path / "b") as rec:
        found = rec.similar("i3", 60)
        wide = rows.astype(np.int64)
        products = wide @ wide[3]
        lengths = np.sqrt((wide * wide).sum(1).astype(np.float64))
        cosines = (products / (lengths[3] * lengths)).astype(np.float32)
        expected = {f"i{row}": float(cosines[row]) for row in range(60) if row != 3}
        assert dict(zip(found.items, found.scores.tolist(), strict=True)) == expected
